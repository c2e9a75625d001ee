package iothub

import (
	"strconv"
	"strings"
)

// PublishKind tells what a client publishes; the zero value is none.
type PublishKind uint8

// What a client may publish, and nothing else.
const (
	Telemetry      PublishKind = iota + 1 // a message, of a device or of a module
	MethodResponse                        // the answer to a MethodCall
	TwinGet                               // asks for the whole twin
	TwinPatch                             // changes reported properties
)

// Publish is the topic of what a client publishes, client to server.
type Publish struct {
	Kind      PublishKind
	ID        ID     // Telemetry: whom the topic names. A server compares it with the connection, which is what counts
	Bag       Bag    // Telemetry: properties. Otherwise query members of no known meaning
	RequestID string // all but Telemetry: echoed untouched. Empty only on a TwinPatch, which then gets no answer
	Status    int    // MethodResponse
}

// ParsePublish reads a topic on which a client publishes. A topic of no known shape wraps [ErrUnknownTopic].
// At most [MaxTopic] bytes. The result shares memory with topic.
func ParsePublish(topic string) (Publish, error) {
	if err := checkTopic("topic", topic); err != nil {
		return Publish{}, err
	}
	if rest, ok := strings.CutPrefix(topic, topicMethodResponse); ok {
		return parseMethodResponse(topic, rest)
	}
	if rest, ok := strings.CutPrefix(topic, topicTwinGet); ok {
		q, err := parseQuery(topic, rest)
		if err == nil && q.request == "" {
			err = syntax("topic", topic, "no $rid, want $iothub/twin/GET/?$rid={id}")
		}
		if err != nil {
			return Publish{}, err
		}
		return Publish{Kind: TwinGet, RequestID: q.request, Bag: q.rest}, nil
	}
	if rest, ok := strings.CutPrefix(topic, topicReported); ok {
		q, err := parseQuery(topic, rest)
		if err != nil {
			return Publish{}, err
		}
		return Publish{Kind: TwinPatch, RequestID: q.request, Bag: q.rest}, nil
	}
	return parseTelemetry(topic)
}

func parseMethodResponse(topic, rest string) (Publish, error) {
	status, rest, err := cutStatus(topic, rest)
	if err != nil {
		return Publish{}, err
	}
	q, err := parseQuery(topic, rest)
	if err != nil {
		return Publish{}, err
	}
	if q.request == "" {
		return Publish{}, syntax("topic", topic, "no $rid, want $iothub/methods/res/{status}/?$rid={id}")
	}
	return Publish{Kind: MethodResponse, Status: status, RequestID: q.request, Bag: q.rest}, nil
}

func parseTelemetry(topic string) (Publish, error) {
	device, module, rest, ok := cutAddress(topic)
	if !ok {
		return Publish{}, unknown("topic", topic)
	}
	text, ok := cutBag(rest, eventsPart)
	if !ok {
		return Publish{}, unknown("topic", topic)
	}
	id, err := NewID(device, module)
	if err != nil {
		return Publish{}, syntax("topic", topic, err.Error())
	}
	bag, err := parseBag(text)
	if err != nil {
		return Publish{}, err
	}
	return Publish{Kind: Telemetry, ID: id, Bag: bag}, nil
}

// Topic prints the topic; [ParsePublish] reads it back. A Publish of no kind prints "".
func (p Publish) Topic() string {
	dst := make([]byte, 0, 96+len(p.RequestID)+p.Bag.room())
	switch p.Kind {
	case Telemetry:
		dst = append(append(appendAddress(dst, p.ID), eventsPart...), '/')
		dst = p.Bag.appendTo(dst)
	case MethodResponse:
		dst = strconv.AppendInt(append(dst, topicMethodResponse...), int64(p.Status), 10)
		dst = appendQuery(append(dst, '/'), p.RequestID, 0, p.Bag)
	case TwinGet:
		dst = appendQuery(append(dst, topicTwinGet...), p.RequestID, 0, p.Bag)
	case TwinPatch:
		dst = appendQuery(append(dst, topicReported...), p.RequestID, 0, p.Bag)
	}
	return string(dst)
}
