package route

import (
	"encoding/binary"
	"testing"
	"unicode/utf16"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

func TestBodiesNeedTheirTypeAndEncoding(t *testing.T) {
	t.Parallel()
	units := func(s string) (b []byte) {
		for _, u := range utf16.Encode([]rune(s)) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
		return b
	}
	wide := func(s string) (b []byte) {
		for _, r := range s {
			b = binary.LittleEndian.AppendUint32(b, uint32(r))
		}
		return b
	}
	const text = `{"a":"ä😀"}`
	for name, tc := range map[string]struct {
		contentType, encoding string
		body                  []byte
		want                  bool
	}{
		"as it should be":          {"application/json", "utf-8", []byte(text), true},
		"in any case":              {"Application/JSON", "UTF-8", []byte(text), true},
		"UTF-16":                   {"application/json", "utf-16", units(text), true},
		"UTF-32":                   {"application/json", "utf-32", wide(text), true},
		"a byte order mark":        {"application/json", "utf-16", units("\ufeff" + text), true},
		"white space around":       {"application/json", "utf-8", []byte("\r\n " + text + " \n"), true},
		"a charset in the type":    {"application/json;charset=utf-8", "utf-8", []byte(text), false},
		"no type":                  {"", "utf-8", []byte(text), false},
		"no encoding":              {"application/json", "", []byte(text), false},
		"another encoding":         {"application/json", "latin-1", []byte(text), false},
		"UTF-16 said of UTF-8":     {"application/json", "utf-16", []byte(text), false},
		"a stray byte of UTF-16":   {"application/json", "utf-16", append(units(text), 0x20), true},
		"not JSON":                 {"application/json", "utf-8", []byte("{'a':1}"), false},
		"JSON but not an object":   {"application/json", "utf-8", []byte(`["a"]`), false},
		"an empty body":            {"application/json", "utf-8", nil, false},
		"an object and then some":  {"application/json", "utf-8", []byte(text + "x"), false},
		"characters beyond UTF-32": {"application/json", "utf-32", append(wide(`{"a":"`), 0xff, 0xff, 0xff, 0xff), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := message.Message{Source: iothub.ID{Device: "d"}, Body: tc.body}
			if tc.contentType != "" {
				m.Bag = m.Bag.Set("$.ct", tc.contentType)
			}
			if tc.encoding != "" {
				m.Bag = m.Bag.Set("$.ce", tc.encoding)
			}
			if got := routes(t, "/*", `$body.a = "ä😀"`, m, false); got != tc.want {
				t.Errorf("got %t, want %t", got, tc.want)
			}
		})
	}
}

func TestTwinChanges(t *testing.T) {
	t.Parallel()
	m := message.Message{
		Source: iothub.ID{Device: "edge1", Module: "sensor"}, Body: []byte(`{"x":{"y":1},"gone":null,"properties":{"reported":{"z":false}}}`),
		Bag: iothub.Bag{{Key: "$.ct", Value: "application/json"}, {Key: "$.ce", Value: "utf-8"}},
	}
	for where, want := range map[string]bool{
		"twin_change_includes(properties.reported.x)":         true,
		"TWIN_CHANGE_INCLUDES( properties.reported.x.y )":     true,
		"twin_change_includes(properties.reported.z)":         true,
		"twin_change_includes(properties.reported.gone)":      false,
		"NOT twin_change_includes(properties.reported.gone)":  true,
		"NOT twin_change_includes(properties.reported.never)": true,
		"twin_change_includes(tags.x)":                        false,
		"twin_change_includes(properties.desired.x)":          false,
		"$connectionModuleId = '$edgeHub'":                    true,
		"$connectionDeviceId = 'edge1'":                       true,
		"$messageSchema = 'twinChangeNotification'":           true,
		"$body.x.y = 1 AND NOT is_defined($outputName)":       true,
		"is_null($body.gone) AND is_defined($body.gone)":      true,
	} {
		if got := routes(t, "/twinChangeNotifications/*", where, m, true); got != want {
			t.Errorf("%s: got %t, want %t", where, got, want)
		}
	}
	for _, path := range []string{"x", "tags", "properties.reported", "properties.x.y", "reported.x", "", "properties.reported.", "'tags.x'"} {
		if r, err := Parse("FROM /twinChangeNotifications WHERE twin_change_includes(" + path + ") INTO $upstream"); err == nil {
			t.Errorf("%s: got %v, want an error", path, r)
		}
	}
	m.Bag = nil
	if routes(t, "/twinChangeNotifications/*", "NOT twin_change_includes(properties.reported.q)", m, true) {
		t.Error("a body of unknown type is not undefined")
	}
}
