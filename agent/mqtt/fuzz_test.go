package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// FuzzPublish: whatever is read as a PUBLISH is written back equal, and nothing larger than the limit is ever taken.
func FuzzPublish(f *testing.F) {
	f.Add(appendPublish(nil, "devices/edge1/messages/events/%24.on=out1/", []byte("{}"), 1, 7))
	f.Add(appendPublish(nil, "$iothub/twin/GET/?$rid=1", []byte(" "), 0, 0))
	f.Add(appendPublish(nil, "t", make([]byte, 300), 1, 65535))
	f.Add([]byte("\x3b\x80\x80\x80\x01"))
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 1 << 10
		for _, buffer := range []int{16, 4096} { // body beyond the read buffer, body within it
			r := bufio.NewReaderSize(bytes.NewReader(in), buffer)
			h, err := readHeader(r, limit)
			if err != nil || h.kind != packets.Publish {
				return
			}
			p, err := readPublish(r, h, "last")
			if err != nil {
				return
			}
			if h.size > limit {
				t.Fatalf("took %d bytes, limit %d", h.size, limit)
			}
			out := appendPublish(nil, p.Topic, p.Payload, p.QoS, p.id)
			rest, _ := io.ReadAll(r)
			body := in[len(in)-len(rest)-h.size : len(in)-len(rest)]
			if got := out[len(out)-h.size:]; !bytes.Equal(got, body) {
				t.Errorf("written back %q, want %q", got, body)
			}
		}
	})
}

// FuzzSubscribe: mochi's decoders of the packets with filters neither panic nor multiply memory, and what they read is written back equal by its encoders.
func FuzzSubscribe(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x01t\x01"))
	f.Add([]byte("\x00\x01\x00\x01t\x00\x03abc\x02"))
	f.Add([]byte("\x00\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > maxSubscribe {
			return
		}
		if id, subs, err := parseSubscribe(body); err == nil {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: 4, PacketID: id}
			for _, s := range subs {
				pk.Filters = append(pk.Filters, packets.Subscription{Filter: s.Filter, Qos: s.QoS})
			}
			var b bytes.Buffer
			if err := pk.SubscribeEncode(&b); err != nil || !bytes.HasSuffix(b.Bytes(), body) {
				t.Errorf("written back %q, %v, want %q", b.Bytes(), err, body)
			}
		}
		if id, filters, err := parseUnsubscribe(body); err == nil {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, ProtocolVersion: 4, PacketID: id}
			for _, s := range filters {
				pk.Filters = append(pk.Filters, packets.Subscription{Filter: s})
			}
			var b bytes.Buffer
			if err := pk.UnsubscribeEncode(&b); err != nil || !bytes.HasSuffix(b.Bytes(), body) {
				t.Errorf("written back %q, %v, want %q", b.Bytes(), err, body)
			}
		}
	})
}

// FuzzConnect: a CONNECT that is read says the same when mochi writes it.
func FuzzConnect(f *testing.F) {
	f.Add([]byte("\x00\x04MQTT\x04\x02\x00\xb4\x00\x05edge1"))
	f.Add([]byte("\x00\x04MQTT\x04\xc6\x00\xb4\x00\x01c\x00\x01t\x00\x01w\x00\x01u\x00\x01p"))
	f.Add([]byte("\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c"))
	f.Fuzz(func(t *testing.T, body []byte) {
		h, err := parseConnect(body)
		if err != nil {
			if h.ClientID != "" || h.Will != nil {
				t.Errorf("error %v with %+v", err, h)
			}
			return
		}
		pk := packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: 4,
			Connect: packets.ConnectParams{
				ProtocolName: []byte("MQTT"), ClientIdentifier: h.ClientID, Clean: h.Clean, Keepalive: uint16(h.KeepAlive / time.Second),
				UsernameFlag: h.UserName+h.Password.Reveal() != "", Username: []byte(h.UserName),
				PasswordFlag: h.Password != "", Password: []byte(h.Password.Reveal()),
			},
		}
		if w := h.Will; w != nil {
			pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, w.Topic, w.Payload
			pk.Connect.WillQos, pk.Connect.WillRetain = w.QoS, w.Retain
		}
		var b bytes.Buffer
		if err := pk.ConnectEncode(&b); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(&b)
		head, err := readHeader(r, 0)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readBody(r, head.size)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseConnect(again); err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("read again: got %+v, %v, want %+v", got, err, h)
		}
	})
}

// mute is a session that does nothing and a handler that takes everybody.
type mute struct{ closed chan error }

func (m mute) Connect(context.Context, Hello) (Session, Code) { return m, Accepted }
func (m mute) Opened(*Conn)                                   {}
func (m mute) Subscribe(s []Subscription) []byte              { return make([]byte, len(s)) }
func (m mute) Unsubscribe([]string)                           {}
func (m mute) Publish(p *Publish)                             { p.Ack() }
func (m mute) Closed(err error)                               { m.closed <- err }

// FuzzConversation: no bytes after a CONNECT make the loop panic or hang.
func FuzzConversation(f *testing.F) {
	f.Add([]byte("\xc0\x00\x82\x06\x00\x01\x00\x01t\x01\x32\x06\x00\x01t\x00\x01x\xe0\x00"))
	f.Add([]byte("\x40\x02\x00\x01\xa2\x05\x00\x02\x00\x01t\x30\x03\x00\x01t"))
	f.Fuzz(func(t *testing.T, in []byte) {
		m := mute{closed: make(chan error, 1)}
		s, err := New(Config{Handler: m, MaxPacket: 1 << 12})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			s.ServeConn(t.Context(), theirs, Origin{})
		}()
		_, _ = ours.Write([]byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c"))
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			_, _ = io.Copy(io.Discard, ours)
		}()
		_, _ = ours.Write(in)
		_ = ours.Close()
		<-served
		<-drained
		if err := <-m.closed; errors.Is(err, ErrPanic) {
			t.Error(err)
		}
	})
}
