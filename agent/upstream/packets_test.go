package upstream

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// packet is a PUBLISH of the hub with a payload of n bytes.
func packet(t testing.TB, n int) []byte {
	t.Helper()
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload = "$iothub/twin/res/200/?$rid=1", make([]byte, n)
	var raw bytes.Buffer
	if err := p.Write(&raw); err != nil {
		t.Fatal(err)
	}
	return raw.Bytes()
}

func TestAPacketThatSaysItIsHugeTakesNoMemory(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		raw  []byte
		want string // "" = taken
	}{
		"largest":             {packet(t, maxPacket-30), ""},
		"too large":           {packet(t, maxPacket+1), "a packet of at least"},
		"256 MiB":             {[]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, "a packet of at least"},
		"a length of 5 bytes": {[]byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x01}, "no MQTT"},
		"after a good one":    {append(packet(t, 10), 0x30, 0xff, 0xff, 0xff, 0x7f), "a packet of at least"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := net.Pipe()
			w := newWire(near)
			go func() {
				_, _ = far.Write(tc.raw) // ends with the pipe
				far.Close()
			}()
			var err error
			for err == nil {
				_, err = packets.ReadPacket(w)
			}
			if said := strings.Contains(err.Error(), tc.want) && tc.want != ""; said != (tc.want != "") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			_ = w.Close()
			<-w.ended
		})
	}
}

// However a stream is cut into reads, each packet's length is judged once, as the client library reads it.
func FuzzPacketLengths(f *testing.F) {
	f.Add([]byte{0xd0, 0}, 1)
	f.Add(append(packet(f, 300), 0xd0, 0), 7)
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 2)
	f.Add([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 1}, 5)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		step = max(1, step%64)
		var whole, parts packetLengths
		want := whole.pass(stream)
		var got error
		for rest := stream; len(rest) > 0 && got == nil; rest = rest[min(step, len(rest)):] {
			got = parts.pass(rest[:min(step, len(rest))])
		}
		if (got == nil) != (want == nil) || got == nil && parts != whole {
			t.Fatalf("in steps of %d: got %v and %+v, want %v and %+v", step, got, parts, want, whole)
		}
		for in := bytes.NewReader(stream); want == nil; { // what passed takes no more memory than it may
			at := in.Len()
			p, err := packets.ReadPacket(in)
			if err != nil {
				break
			}
			if took := at - in.Len(); took > maxPacket+5 {
				t.Fatalf("a packet of %d bytes passed: %v", took, p)
			}
		}
	})
}
