package iothub

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Fixed parts of the topics. The identity in an $iothub topic comes from the connection alone.
const (
	topicMethodCall     = "$iothub/methods/POST/"
	topicMethodResponse = "$iothub/methods/res/"
	topicTwinGet        = "$iothub/twin/GET/"
	topicTwinResult     = "$iothub/twin/res/"
	topicReported       = "$iothub/twin/PATCH/properties/reported/"
	topicDesired        = "$iothub/twin/PATCH/properties/desired/"

	topicDevices = "devices/"
	modulesPart  = "modules/"
	eventsPart   = "messages/events"
	c2dPart      = "messages/devicebound"
	inputsPart   = "inputs/"

	queryRequest = "$rid"
	queryVersion = "$version"
)

// checkTopic refuses what cannot be an MQTT topic, before anything is allocated.
func checkTopic(noun, s string) error {
	if len(s) > MaxTopic {
		return syntax(noun, s, "longer than 65535 bytes")
	}
	if !utf8.ValidString(s) {
		return syntax(noun, s, "not UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return syntax(noun, s, "holds a zero byte")
	}
	return nil
}

// cutAddress splits "devices/{device}[/modules/{module}]/{rest}"; ok is false when s has not that shape. The ids are not checked
// yet, so that a topic of unknown shape is told from a known one with a bad id.
func cutAddress(s string) (device, module, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, topicDevices)
	if !ok {
		return "", "", "", false
	}
	device, rest, ok = strings.Cut(s, "/")
	if !ok {
		return "", "", "", false
	}
	tail, isModule := strings.CutPrefix(rest, modulesPart)
	if !isModule {
		return device, "", rest, true
	}
	module, rest, ok = strings.Cut(tail, "/")
	return device, module, rest, ok && module != ""
}

// appendAddress is the way back: "devices/{device}[/modules/{module}]/".
func appendAddress(dst []byte, id ID) []byte {
	dst = append(append(append(dst, topicDevices...), id.Device...), '/')
	if id.Module != "" {
		dst = append(append(append(dst, modulesPart...), id.Module...), '/')
	}
	return dst
}

// cutBag takes the bag behind a fixed word: nothing, "/", "/{bag}" or "/{bag}/", the bag perhaps with a '?' before it.
func cutBag(rest, word string) (bag string, ok bool) {
	rest, ok = strings.CutPrefix(rest, word)
	if !ok {
		return "", false
	}
	if rest == "" {
		return "", true
	}
	if rest, ok = strings.CutPrefix(rest, "/"); !ok {
		return "", false
	}
	return strings.TrimPrefix(strings.TrimSuffix(rest, "/"), "?"), true
}

// query is what stands behind the last slash of an $iothub topic.
type query struct {
	request string // as received: a request id is echoed untouched, never decoded
	version int64
	rest    Bag // other members, decoded
}

func parseQuery(topic, s string) (query, error) {
	var q query
	if s != "" {
		tail, ok := strings.CutPrefix(s, "?")
		if !ok {
			return query{}, syntax("topic", topic, `want "?" behind the last slash`)
		}
		s = tail
	}
	var others []string
	for s != "" {
		var pair string
		pair, s, _ = strings.Cut(s, "&")
		key, value, _ := strings.Cut(pair, "=")
		switch unescape(key) {
		case queryRequest:
			if q.request == "" {
				q.request = value
			}
		case queryVersion:
			if q.version != 0 {
				continue
			}
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil || n == 0 {
				return query{}, syntax("topic", topic, "$version is not a positive number")
			}
			q.version = int64(n)
		default:
			if pair != "" {
				if len(others) == MaxProperties {
					return query{}, syntax("topic", topic, "more than 1024 members in the query")
				}
				others = append(others, pair)
			}
		}
	}
	if why := badRequestID(q.request); why != "" {
		return query{}, syntax("topic", topic, why)
	}
	for _, pair := range others {
		key, value, _ := strings.Cut(pair, "=")
		q.rest = append(q.rest, Property{Key: unescape(key), Value: unescape(value)})
	}
	return q, nil
}

func badRequestID(s string) string {
	if len(s) > MaxRequestID {
		return "$rid longer than 1024 bytes"
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return "$rid holds a control character"
		}
	}
	return ""
}

// appendQuery prints "?$rid=…&$version=…&…" with the members there are, nothing when there is none.
func appendQuery(dst []byte, request string, version int64, rest Bag) []byte {
	sep := byte('?')
	if request != "" {
		dst = append(append(append(dst, sep), queryRequest+"="...), request...)
		sep = '&'
	}
	if version != 0 {
		dst = append(append(dst, sep), queryVersion+"="...)
		dst = strconv.AppendInt(dst, version, 10)
		sep = '&'
	}
	if len(rest) > 0 {
		dst = rest.appendTo(append(dst, sep))
	}
	return dst
}

// cutStatus splits "{status}/{query}". A status is a decimal integer of 32 bits; applications choose their own.
func cutStatus(topic, s string) (status int, rest string, err error) {
	text, rest, ok := strings.Cut(s, "/")
	if !ok {
		return 0, "", syntax("topic", topic, `want "/?" behind the status`)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > math.MaxInt32 || n < math.MinInt32 || text[0] == '+' {
		return 0, "", syntax("topic", topic, "the status is not a number")
	}
	return int(n), rest, nil
}

// cutName splits "{name}/{rest}" and decodes the name; ok tells whether there was a slash behind it.
func cutName(topic, s string) (name, rest string, ok bool, err error) {
	text, rest, ok := strings.Cut(s, "/")
	if text == "" {
		return "", "", false, syntax("topic", topic, "empty name")
	}
	if len(text) > MaxName {
		return "", "", false, syntax("topic", topic, "name longer than 1024 bytes")
	}
	return unescape(text), rest, ok, nil
}
