package upstream

import "fmt"

// maxPacket is the largest packet that is taken from the hub: a method call has 132 KiB at most, a twin of two full sections less. The
// client library takes memory for what a packet says of its length, up to 256 MiB, before a byte of it is there.
const maxPacket = 1 << 20

// packetLengths follows the lengths of the packets that pass (MQTT 3.1.1, section 2.2.3), and no more of them.
type packetLengths struct {
	rest  int // bytes of the packet under way that have not passed
	size  int // of the packet whose length is passing
	shift int // bits of size so far
	begun bool
}

// pass looks at bytes that came. Its error is for a packet that is longer than any the hub has to say.
func (l *packetLengths) pass(p []byte) error {
	for len(p) > 0 {
		switch b := p[0]; {
		case l.rest > 0:
			n := min(l.rest, len(p))
			l.rest -= n
			p = p[n:]
			continue
		case !l.begun:
			*l = packetLengths{begun: true}
		default:
			l.size |= int(b&0x7f) << l.shift
			l.shift += 7
			if l.size > maxPacket {
				return fmt.Errorf("the hub sends a packet of at least %d bytes, %d are taken", l.size, maxPacket)
			}
			if b&0x80 == 0 {
				*l = packetLengths{rest: l.size}
			} else if l.shift == 28 {
				return fmt.Errorf("the hub sends what is no MQTT: a length of more than four bytes")
			}
		}
		p = p[1:]
	}
	return nil
}
