package workload

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// The frames are read here and written in hal_encode.go without reflection: a batch of 64 writes passes twice as fast, and a connection keeps one list of
// operations for all its frames. FuzzFrameIsReadAsTheLibraryReadsIt holds this against the library.

// The major types of CBOR (RFC 8949, section 3.1).
const (
	cborUint   = 0
	cborNegint = 1
	cborBytes  = 2
	cborText   = 3
	cborArray  = 4
	cborMap    = 5
	cborTag    = 6
	cborOther  = 7
)

// Bounds of one frame's document.
const (
	maxFrameOps   = 256
	maxFramePairs = 64
	maxFrameNest  = 8
)

var errFrame = errors.New("not the CBOR of a frame")

// cborReader takes a document apart; the first mistake ends it.
type cborReader struct {
	rest []byte
	err  error
	name string // that was read last: the operations of a batch often have one
}

func (c *cborReader) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %w", errFrame, fmt.Errorf(format, args...))
	}
	c.rest = nil
}

// head reads the first bytes of an item: its major type, the five bits beside it, and its argument.
func (c *cborReader) head() (major, info byte, arg uint64) {
	if len(c.rest) == 0 {
		c.fail("it ends early")
		return 0, 0, 0
	}
	major, info = c.rest[0]>>5, c.rest[0]&31
	n := 0
	switch {
	case info < 24:
		arg = uint64(info)
	case info < 28:
		n = 1 << (info - 24)
	default:
		c.fail("an item without a length")
		return 0, 0, 0
	}
	if len(c.rest) < 1+n {
		c.fail("it ends early")
		return 0, 0, 0
	}
	for _, b := range c.rest[1 : 1+n] {
		arg = arg<<8 | uint64(b)
	}
	if c.rest = c.rest[1+n:]; major == cborTag {
		c.fail("a tag")
	}
	return major, info, arg
}

// take cuts n bytes off.
func (c *cborReader) take(n uint64) []byte {
	if n > uint64(len(c.rest)) {
		c.fail("it ends early")
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

// of reads the head of an item that must have a type; false is a null, which leaves a field as it is, or a mistake.
func (c *cborReader) of(want byte) (uint64, bool) {
	major, info, arg := c.head()
	if major == cborOther && (info == 22 || info == 23) {
		return 0, false
	}
	if c.err == nil && major != want {
		c.fail("an item of type %d, want %d", major, want)
	}
	return arg, c.err == nil
}

func (c *cborReader) uint(most uint64) uint64 {
	n, ok := c.of(cborUint)
	if !ok {
		return 0
	}
	if n > most {
		c.fail("%d; at most %d", n, most)
	}
	return n
}

// number reads a value: whole or with a fraction.
func (c *cborReader) number() (float64, bool) {
	major, info, arg := c.head()
	switch {
	case c.err != nil:
	case major == cborUint:
		return float64(arg), true
	case major == cborNegint:
		return -1 - float64(arg), true
	case major == cborOther && info == 25:
		return half(uint16(arg)), true
	case major == cborOther && info == 26:
		return float64(math.Float32frombits(uint32(arg))), true
	case major == cborOther && info == 27:
		return math.Float64frombits(arg), true
	case major == cborOther && (info == 22 || info == 23):
	default:
		c.fail("no number")
	}
	return 0, false
}

// half is a number of 16 bits (RFC 8949, appendix D).
func half(bits uint16) float64 {
	exponent, mantissa := int(bits>>10&31), float64(bits&1023)
	v := math.Ldexp(mantissa+1024, exponent-25)
	switch exponent {
	case 0:
		v = math.Ldexp(mantissa, -24)
	case 31:
		if v = math.Inf(1); mantissa != 0 {
			v = math.NaN()
		}
	}
	if bits&0x8000 != 0 {
		return -v
	}
	return v
}

// text reads a text; it is of the frame's own bytes.
func (c *cborReader) text() []byte {
	n, ok := c.of(cborText)
	if !ok {
		return nil
	}
	b := c.take(n)
	if !utf8.Valid(b) {
		c.fail("a text that is not UTF-8")
	}
	return b
}

// skip reads over an item of any kind.
func (c *cborReader) skip(nest int) {
	major, info, arg := c.head()
	items := arg
	switch major {
	case cborBytes:
		c.take(arg)
		return
	case cborText:
		if !utf8.Valid(c.take(arg)) {
			c.fail("a text that is not UTF-8")
		}
		return
	case cborMap:
		if items = 2 * arg; arg > maxFramePairs {
			c.fail("a map of %d", arg)
		}
	case cborArray:
		if arg > maxFrameOps {
			c.fail("a list of %d", arg)
		}
	case cborOther:
		if info == 24 && arg < 32 {
			c.fail("a simple value in two bytes")
		}
		return
	default:
		return
	}
	if nest >= maxFrameNest {
		c.fail("too many levels")
	}
	for ; items > 0 && c.err == nil; items-- {
		c.skip(nest + 1)
	}
}

// fields calls one for each key of a map; one says which of 32 fields it read, so that none comes twice, or -1 for a key it has no use for.
func (c *cborReader) fields(nest int, one func(key []byte) int) {
	n, ok := c.of(cborMap)
	if n > maxFramePairs {
		c.fail("a map of %d", n)
	}
	seen := uint32(0)
	for ; ok && n > 0 && c.err == nil; n-- {
		if len(c.rest) == 0 || c.rest[0]>>5 != cborText {
			c.fail("a key that is no text")
			return
		}
		field := one(c.text())
		if field < 0 {
			c.skip(nest)
			continue
		}
		if seen&(1<<field) != 0 {
			c.fail("a key comes twice")
		}
		seen |= 1 << field
	}
}

// readRequest fills req from the document of one frame; the room of its list of operations is used again.
func readRequest(raw []byte, req *frameRequest) error {
	ops := req.Ops[:0]
	*req = frameRequest{}
	c := cborReader{rest: raw}
	c.fields(1, func(key []byte) int {
		switch string(key) {
		case "id":
			req.ID = c.uint(math.MaxUint64)
			return 16
		case "deadline":
			req.Limit = uint32(c.uint(math.MaxUint32))
			return 17
		case "watch":
			req.Watch = string(c.text())
			return 18
		case "from":
			req.From = c.uint(math.MaxUint64)
			return 19
		case "ops":
			n, ok := c.of(cborArray)
			if n > maxFrameOps {
				c.fail("%d operations", n)
			}
			for ; ok && n > 0 && c.err == nil; n-- {
				ops = append(ops, frameOp{})
				op := &ops[len(ops)-1]
				c.fields(3, func(key []byte) int { return op.read(&c, key) })
			}
			if ok {
				req.Ops, req.Batch = ops, true
			}
			return 20
		}
		return req.read(&c, key)
	})
	if c.err == nil && len(c.rest) > 0 {
		c.fail("%d bytes too many", len(c.rest))
	}
	if !req.Batch {
		req.Ops = ops // for its room
	}
	return c.err
}

// read takes one key of an operation.
func (o *frameOp) read(c *cborReader, key []byte) int {
	switch string(key) {
	case "name":
		if name := c.text(); string(name) != c.name {
			c.name = string(name)
		}
		o.Name = c.name
		return 0
	case "value":
		o.Value, o.Writes = c.number()
		return 1
	case "for":
		o.For = uint32(c.uint(math.MaxUint32))
		return 2
	case "fence":
		o.Fence = c.uint(math.MaxUint64)
		return 3
	case "w":
		if n, ok := c.of(cborBytes); ok {
			o.W = append([]byte{}, c.take(n)...) // a call that overstays goes on with its own
		}
		return 4
	case "r":
		o.R = int(c.uint(math.MaxInt32))
		return 5
	case "fn":
		o.Fn = hal.Function(c.text())
		return 6
	case "addr":
		o.Addr = uint16(c.uint(math.MaxUint16))
		return 7
	case "n":
		o.N = uint16(c.uint(math.MaxUint16))
		return 8
	case "can":
		o.CAN = uint32(c.uint(math.MaxUint32))
		return 9
	}
	return -1
}
