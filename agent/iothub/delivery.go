package iothub

import (
	"strconv"
	"strings"
)

// DeliveryKind tells what a server delivers; the zero value is none.
type DeliveryKind uint8

// What a server may deliver, and nothing else.
const (
	Input         DeliveryKind = iota + 1 // a message for an input of a module
	CloudToDevice                         // a message for a device
	MethodCall                            // a direct method; the client answers with a MethodResponse
	TwinResult                            // the answer to a TwinGet or a TwinPatch
	DesiredPatch                          // a change of desired properties
)

// Delivery is the topic of what a server delivers, server to client.
type Delivery struct {
	Kind      DeliveryKind
	ID        ID     // Input, CloudToDevice: the receiver
	Name      string // Input: the input; MethodCall: the method. Decoded
	Bag       Bag    // Input, CloudToDevice: properties. Otherwise query members of no known meaning
	RequestID string // MethodCall, TwinResult: never empty, as received
	Status    int    // TwinResult. Node ignores it: an error needs an [Error] body as well
	Version   int64  // TwinResult, DesiredPatch: version of the section, 0 when absent
}

// ParseDelivery reads a topic on which a server delivers. A topic of no known shape wraps [ErrUnknownTopic].
// At most [MaxTopic] bytes. The result shares memory with topic.
func ParseDelivery(topic string) (Delivery, error) {
	if err := checkTopic("topic", topic); err != nil {
		return Delivery{}, err
	}
	if rest, ok := strings.CutPrefix(topic, topicMethodCall); ok {
		return parseMethodCall(topic, rest)
	}
	if rest, ok := strings.CutPrefix(topic, topicTwinResult); ok {
		return parseTwinResult(topic, rest)
	}
	if rest, ok := strings.CutPrefix(topic, topicDesired); ok {
		q, err := parseQuery(topic, rest)
		if err != nil {
			return Delivery{}, err
		}
		return Delivery{Kind: DesiredPatch, Version: q.version, Bag: q.rest}, nil
	}
	return parseMessage(topic)
}

func parseMethodCall(topic, rest string) (Delivery, error) {
	name, rest, _, err := cutName(topic, rest)
	if err != nil {
		return Delivery{}, err
	}
	q, err := parseQuery(topic, rest)
	if err != nil {
		return Delivery{}, err
	}
	if q.request == "" {
		return Delivery{}, syntax("topic", topic, "no $rid, want $iothub/methods/POST/{name}/?$rid={id}")
	}
	return Delivery{Kind: MethodCall, Name: name, RequestID: q.request, Bag: q.rest}, nil
}

func parseTwinResult(topic, rest string) (Delivery, error) {
	status, rest, err := cutStatus(topic, rest)
	if err != nil {
		return Delivery{}, err
	}
	q, err := parseQuery(topic, rest)
	if err != nil {
		return Delivery{}, err
	}
	if q.request == "" {
		return Delivery{}, syntax("topic", topic, "no $rid, want $iothub/twin/res/{status}/?$rid={id}")
	}
	return Delivery{Kind: TwinResult, Status: status, RequestID: q.request, Version: q.version, Bag: q.rest}, nil
}

func parseMessage(topic string) (Delivery, error) {
	device, module, rest, ok := cutAddress(topic)
	if !ok {
		return Delivery{}, unknown("topic", topic)
	}
	id, idErr := NewID(device, module)
	d := Delivery{ID: id}
	var text string
	if module == "" {
		d.Kind = CloudToDevice
		if text, ok = cutBag(rest, c2dPart); !ok {
			return Delivery{}, unknown("topic", topic)
		}
	} else {
		d.Kind = Input
		if rest, ok = strings.CutPrefix(rest, inputsPart); !ok {
			return Delivery{}, unknown("topic", topic)
		}
		name, behind, slash, err := cutName(topic, rest)
		if err != nil {
			return Delivery{}, err
		}
		d.Name = name
		if slash {
			text = strings.TrimPrefix(strings.TrimSuffix(behind, "/"), "?")
		}
	}
	if idErr != nil {
		return Delivery{}, syntax("topic", topic, idErr.Error())
	}
	bag, err := parseBag(text)
	if err != nil {
		return Delivery{}, err
	}
	d.Bag = bag
	return d, nil
}

// Topic prints the topic; [ParseDelivery] reads it back. The slash behind an input's name is always there: without
// it Node acknowledges the message and drops it. A Delivery of no kind prints "".
func (d Delivery) Topic() string {
	dst := make([]byte, 0, 96+len(d.Name)+len(d.RequestID)+d.Bag.room())
	switch d.Kind {
	case Input:
		dst = append(appendAddress(dst, d.ID), inputsPart...)
		dst = append(appendEscaped(dst, d.Name, named), '/')
		dst = d.Bag.appendTo(dst)
	case CloudToDevice:
		dst = append(append(appendAddress(dst, d.ID), c2dPart...), '/')
		dst = d.Bag.appendTo(dst)
	case MethodCall:
		dst = append(appendEscaped(append(dst, topicMethodCall...), d.Name, named), '/')
		dst = appendQuery(dst, d.RequestID, 0, d.Bag)
	case TwinResult:
		dst = strconv.AppendInt(append(dst, topicTwinResult...), int64(d.Status), 10)
		dst = appendQuery(append(dst, '/'), d.RequestID, d.Version, d.Bag)
	case DesiredPatch:
		dst = appendQuery(append(dst, topicDesired...), "", d.Version, d.Bag)
	}
	return string(dst)
}
