package mqtt_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

func TestHostilePacketsEndTheConnection(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\x00", 40)
	for name, tc := range map[string]struct {
		send string // after the CONNECT
		want string // in the reason
		ends bool   // the client ends it
	}{
		"QoS 2":                             {"\x34\x05\x00\x01t\x00\x01", "QoS 2", false},
		"QoS 3":                             {"\x36\x05\x00\x01t\x00\x01", "QoS 3", false},
		"packet identifier 0":               {"\x32\x05\x00\x01t\x00\x00", "identifier 0", false},
		"no packet identifier":              {"\x32\x03\x00\x01t", "no packet identifier", false},
		"topic beyond the packet":           {"\x30\x03\x00\x09t", "topic longer", false},
		"topic that is not text":            {"\x30\x03\x00\x01\xff", "not UTF-8", false},
		"topic with NUL":                    {"\x30\x03\x00\x01\x00", "not UTF-8", false},
		"publish too short":                 {"\x30\x01\x00", "too short", false},
		"publish too large, never read":     {"\x30\xff\xff\xff\x7f", "too large", false},
		"subscribe too large, never read":   {"\x82\x81\x40", "too large", false},
		"length that never ends":            {"\x30\x80\x80\x80\x80\x80\x80", "four bytes", false},
		"second CONNECT":                    {string(connectPacket("c")), "second CONNECT", false},
		"a packet that only servers send":   {"\x20\x02\x00\x00", "unexpected packet type 2", false},
		"PUBREL, there is no QoS 2":         {"\x62\x02\x00\x01", "unexpected packet type 6", false},
		"reserved type 0":                   {"\x00\x00", "unexpected packet type 0", false},
		"reserved type 15":                  {"\xf0\x00", "unexpected packet type 15", false},
		"flags on PINGREQ":                  {"\xc1\x00", "reserved header flags", false},
		"SUBSCRIBE without its flag":        {"\x80\x06\x00\x01\x00\x01t\x01", "reserved header flags", false},
		"SUBSCRIBE without filter":          {"\x82\x02\x00\x01", "no filter", false},
		"SUBSCRIBE with QoS 3":              {"\x82\x06\x00\x01\x00\x01t\x03", "parse SUBSCRIBE", false},
		"SUBSCRIBE cut in the filter":       {"\x82\x05\x00\x01\x00\x09t", "parse SUBSCRIBE", false},
		"SUBSCRIBE with identifier 0":       {"\x82\x06\x00\x00\x00\x01t\x01", "identifier 0", false},
		"UNSUBSCRIBE without filter":        {"\xa2\x02\x00\x01", "no filter", false},
		"UNSUBSCRIBE with identifier 0":     {"\xa2\x05\x00\x00\x00\x01t", "identifier 0", false},
		"PUBACK of another size":            {"\x40\x03\x00\x01\x00", "too large", false},
		"ends in the middle of a packet":    {"\x30\x30\x00\x01t", "unexpected EOF", true},
		"ends in the middle of a header":    {"\x30", "unexpected EOF", true},
		"ends without DISCONNECT":           {"", "without DISCONNECT", true},
		"a PUBACK for nothing, then nought": {"\x40\x02\x12\x34" + long, "unexpected packet type 0", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRecorder()
			s := newServer(t, mqtt.Config{Handler: r})
			nc := s.dial(mqtt.Origin{})
			if _, err := nc.Write(connectPacket("c")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(nc, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			drained := make(chan error)
			go func() {
				_, err := io.Copy(io.Discard, nc)
				drained <- err
			}()
			_, _ = nc.Write([]byte(tc.send)) // fails when the server closes in the middle
			if tc.ends {
				_ = nc.Close()
			}
			<-drained
			_ = nc.Close()
			if got := <-r.closed; got == nil || !strings.Contains(got.Error(), tc.want) {
				t.Errorf("closed: got %v, want it to say %q", got, tc.want)
			}
		})
	}
}

func TestHostileConnects(t *testing.T) {
	t.Parallel()
	const refused = "\x20\x02\x00\x01" // CONNACK with BadProtocol
	for name, tc := range map[string]struct{ send, want string }{
		"MQTT 5 is told so":             {"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c", refused},
		"MQTT 3.1 is told so":           {"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c", refused},
		"an empty CONNECT":              {"\x10\x00", refused},
		"no CONNECT first":              {"\xc0\x00", ""},
		"HTTP":                          {"GET / HTTP/1.1\r\n\r\n", ""},
		"reserved flag":                 {"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01c", ""},
		"password without a user name":  {"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x01c\x00\x01p", ""},
		"will QoS without a will":       {"\x10\x0d\x00\x04MQTT\x04\x0a\x00\x00\x00\x01c", ""},
		"cut in the client id":          {"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x09c", ""},
		"too large, never read":         {"\x10\xff\xff\x7f", ""},
		"cut in the will":               {"\x10\x0f\x00\x04MQTT\x04\x06\x00\x00\x00\x01c\x00\x09", ""},
		"user name announced, not sent": {"\x10\x0d\x00\x04MQTT\x04\x82\x00\x00\x00\x01c", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, mqtt.Config{Handler: newRecorder()})
			nc := s.dial(mqtt.Origin{})
			go func() { _, _ = nc.Write([]byte(tc.send)) }()
			var got bytes.Buffer
			_, _ = got.ReadFrom(nc)
			if got.String() != tc.want {
				t.Errorf("answer: got %q, want %q", got.String(), tc.want)
			}
		})
	}
}
