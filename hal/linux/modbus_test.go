package linux

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestModbusRequestsAreTheBytesOfTheSpecification(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		r    modbusRequest
		want string
	}{
		"coils 20-38":              {modbusRequest{fn: readCoils, addr: 19, count: 19}, "\x01\x00\x13\x00\x13"},
		"holding registers":        {modbusRequest{fn: readHolding, addr: 107, count: 3}, "\x03\x00\x6b\x00\x03"},
		"one coil on":              {modbusRequest{fn: writeCoil, addr: 172, data: []byte{1}}, "\x05\x00\xac\xff\x00"},
		"one coil off":             {modbusRequest{fn: writeCoil, addr: 172, data: []byte{0}}, "\x05\x00\xac\x00\x00"},
		"one register":             {modbusRequest{fn: writeRegister, addr: 1, data: []byte{0, 3}}, "\x06\x00\x01\x00\x03"},
		"ten coils":                {modbusRequest{fn: writeCoils, addr: 19, data: []byte{1, 0, 1, 1, 0, 0, 1, 1, 1, 0}}, "\x0f\x00\x13\x00\x0a\x02\xcd\x01"},
		"two registers":            {modbusRequest{fn: writeRegisters, addr: 1, data: []byte{0, 10, 1, 2}}, "\x10\x00\x01\x00\x02\x04\x00\x0a\x01\x02"},
		"the last register of all": {modbusRequest{fn: readInput, addr: 65535, count: 1}, "\x04\xff\xff\x00\x01"},
	} {
		if got, err := c.r.encode(); string(got) != c.want || err != nil {
			t.Errorf("%s: got %x, %v, want %x", name, got, err, c.want)
		}
	}
	for name, r := range map[string]modbusRequest{
		"wraps":                    {fn: readHolding, addr: 65535, count: 2},
		"none":                     {fn: readHolding},
		"too many registers":       {fn: readHolding, count: 126},
		"too many coils":           {fn: readCoils, count: 2001},
		"negative":                 {fn: readCoils, count: -1},
		"half a register":          {fn: writeRegisters, data: []byte{1, 2, 3}},
		"two registers in a one":   {fn: writeRegister, data: []byte{1, 2, 3, 4}},
		"two coils in a one":       {fn: writeCoil, data: []byte{1, 1}},
		"write of nothing":         {fn: writeCoils},
		"function of file records": {fn: 20, count: 1},
	} {
		if got, err := r.encode(); err == nil {
			t.Errorf("%s: passed as %x", name, got)
		}
	}
}

func TestModbusAnswersMustBeTheAnswers(t *testing.T) {
	t.Parallel()
	regs := modbusRequest{fn: readHolding, addr: 5, count: 2}
	coils := modbusRequest{fn: readCoils, count: 10}
	put := modbusRequest{fn: writeRegister, addr: 1, data: []byte{0, 3}}
	for name, c := range map[string]struct {
		r    modbusRequest
		pdu  string
		want string
		ok   bool
	}{
		"registers":                   {regs, "\x03\x04abcd", "abcd", true},
		"coils":                       {coils, "\x01\x02\x05\x02", "\x01\x00\x01\x00\x00\x00\x00\x00\x00\x01", true},
		"echo of a write":             {put, "\x06\x00\x01\x00\x03", "", true},
		"count above the bytes":       {regs, "\x03\x06abcd", "", false},
		"more bytes than the count":   {regs, "\x03\x04abcdef", "", false},
		"other function":              {regs, "\x04\x04abcd", "", false},
		"echo of another write":       {put, "\x06\x00\x01\x00\x04", "", false},
		"an exception":                {regs, "\x83\x02", "", false},
		"an exception of another one": {regs, "\x84\x02", "", false},
		"nothing":                     {regs, "", "", false},
	} {
		got, err := c.r.decode([]byte(c.pdu))
		if string(got) != c.want || (err == nil) != c.ok {
			t.Errorf("%s: got %x, %v, want %x, ok %v", name, got, err, c.want, c.ok)
		}
	}
	if _, err := regs.decode([]byte("\x83\x02")); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "exception 2 illegal address") {
		t.Errorf("got %v, want exception 2", err)
	}
}

func FuzzModbusAnswer(f *testing.F) {
	f.Add(byte(3), uint16(0), 2, []byte("\x03\x04abcd"))
	f.Add(byte(1), uint16(9), 10, []byte("\x01\x02\x05\x02"))
	f.Add(byte(16), uint16(1), 2, []byte("\x10\x00\x01\x00\x01"))
	f.Add(byte(5), uint16(1), 1, []byte("\x85\x02"))
	f.Fuzz(func(t *testing.T, fn byte, addr uint16, count int, pdu []byte) {
		r := modbusRequest{fn: modbusFn(fn), addr: addr, count: count}
		if fn >= 5 {
			r.data = make([]byte, min(max(count, 0), 300))
		}
		sent, err := r.encode()
		if err != nil {
			return
		}
		if len(sent) > maxPDU {
			t.Fatalf("request of %d bytes", len(sent))
		}
		if n := r.answerLength(pdu); n > maxPDU || n < 0 {
			t.Fatalf("answer of %d bytes", n)
		}
		got, err := r.decode(pdu)
		if want := map[modbusFn]int{readCoils: count, readDiscrete: count, readHolding: 2 * count, readInput: 2 * count}[r.fn]; err == nil && len(got) != want {
			t.Fatalf("got %d bytes, want %d", len(got), want)
		}
		_, _, body, err := readMBAP(bytes.NewReader(pdu), make([]byte, 7+maxPDU))
		if err == nil && (len(body) < 1 || len(body) > maxPDU) {
			t.Fatalf("body of %d bytes", len(body))
		}
	})
}

// ptyPair is a serial line in memory: the port under test and its far end.
func ptyPair(t *testing.T, mode string) (*tty, *os.File) {
	t.Helper()
	far, path := newPTY(t)
	port, err := (&host{}).openTTY(serialAt(t, path, mode))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	return port, far
}

func newPTY(t *testing.T) (far *os.File, path string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("SKIPPED: no pseudo terminals here: %v", err)
	}
	far = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { far.Close() })
	var n uint32
	unlock := int32(0)
	if err := ioctl(fd, unix.TIOCSPTLCK, unsafe.Pointer(&unlock)); err != nil {
		t.Fatal(err)
	}
	if err := ioctl(fd, unix.TIOCGPTN, unsafe.Pointer(&n)); err != nil {
		t.Fatal(err)
	}
	return far, "/dev/pts/" + strconv.Itoa(int(n))
}

// unit answers requests on the far end of a line by the function's word; it ends with the line.
func unit(t *testing.T, far io.ReadWriter, answer func(frame []byte) []byte) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 256)
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			if out := answer(buf[:n]); out != nil {
				if _, err := far.Write(out); err != nil {
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		if c, ok := far.(io.Closer); ok {
			c.Close()
		}
		<-done
	})
}

func framed(unit byte, pdu string) []byte {
	b := append([]byte{unit}, pdu...)
	return binary.LittleEndian.AppendUint16(b, crc16(b))
}

func TestModbusOverASerialLine(t *testing.T) {
	t.Parallel()
	read := modbusRequest{fn: readHolding, addr: 0, count: 2}
	for name, c := range map[string]struct {
		answer []byte
		want   string
		err    error
	}{
		"registers":             {answer: framed(3, "\x03\x04abcd"), want: "abcd"},
		"a wrong check sum":     {answer: append(framed(3, "\x03\x04abcd")[:7], 0, 0), err: unix.EPROTO},
		"another unit":          {answer: framed(4, "\x03\x04abcd"), err: unix.EPROTO},
		"a frame cut short":     {answer: framed(3, "\x03\x04abcd")[:5], err: unix.EPROTO},
		"nothing":               {err: os.ErrDeadlineExceeded},
		"noise after the frame": {answer: append(framed(3, "\x03\x04abcd"), 0xff), want: "abcd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port, far := ptyPair(t, "115200-8N1")
			unit(t, far, func([]byte) []byte { return c.answer })
			m := &modbusRTU{port: port}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			got, err := m.do(ctx, 3, read)
			if string(got) != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %q, %v, want %q, %v", got, err, c.want, c.err)
			}
		})
	}
}

func TestModbusFramesKeepTheSilenceBetweenThem(t *testing.T) {
	t.Parallel()
	port, far := ptyPair(t, "9600-8N1")
	unit(t, far, func([]byte) []byte { return framed(3, "\x03\x02ab") })
	m := &modbusRTU{port: port, gap: 20 * time.Millisecond}
	for i := range 3 {
		last := m.last // of the line, not of this goroutine, which may have to wait for its turn
		if _, err := m.do(t.Context(), 3, modbusRequest{fn: readHolding, count: 1}); err != nil {
			t.Fatal(err)
		}
		if wait := time.Since(last); i > 0 && wait < m.gap+m.t35() {
			t.Errorf("frame %d: began and ended %v after the last one, want a silence of %v", i, wait, m.gap+m.t35())
		}
	}
	if got, want := m.t35().Round(time.Microsecond), 3646*time.Microsecond; got != want {
		t.Errorf("t3.5 at 9600 baud: got %v, want %v", got, want)
	}
}

func TestSerialPortIsForOneUser(t *testing.T) {
	t.Parallel()
	_, path := newPTY(t)
	m := serialAt(t, path, "9600-7E2")
	first, err := (&host{}).openTTY(m)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := (&host{}).openTTY(m); !errors.Is(err, CodeBusy) {
		t.Errorf("second user: got %v, %v, want busy", second, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	_, path = newPTY(t) // the first stays taken for as long as its other end is open, except for root
	half := *serialAt(t, path, "9600-7E2")
	half.RS485 = &hal.RS485Config{}
	if _, err := (&host{}).openTTY(&half); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("RS-485 on a pseudo terminal: got %v, want ENOTTY", err)
	}
}

func TestModbusOverTCPReadsOverAnswersThatWereGivenUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conns := make(chan int, 8)
	go func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- n
			go serveTCP(c)
		}
	}()
	m := &modbusTCP{address: l.Addr().String()}
	t.Cleanup(func() { m.Close() })
	for i := range 3 {
		got, err := m.do(t.Context(), 1, modbusRequest{fn: readInput, addr: uint16(i), count: 1})
		if want := string([]byte{0, byte(i)}); string(got) != want || err != nil {
			t.Errorf("got %x, %v, want %x", got, err, want)
		}
	}
	if _, err := m.do(t.Context(), 1, modbusRequest{fn: readInput, addr: 400, count: 1}); !errors.Is(err, errRefused) {
		t.Errorf("got %v, want an exception", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.do(ctx, 2, modbusRequest{fn: readInput, addr: 500, count: 1}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("no answer: got %v, want the deadline", err)
	}
	if len(conns) != 1 {
		t.Errorf("got %d connections before an error, want 1", len(conns))
	}
	if _, err := m.do(t.Context(), 1, modbusRequest{fn: readInput, addr: 1, count: 1}); err != nil || len(conns) != 2 {
		t.Errorf("after an error: got %v over connection %d, want a second one", err, len(conns))
	}
}

// serveTCP answers with the address; a stale answer first, an exception for 400, nothing for 500.
func serveTCP(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 300)
	for {
		id, unit, pdu, err := readMBAP(c, buf)
		if err != nil {
			return
		}
		addr := binary.BigEndian.Uint16(pdu[1:])
		out := appendMBAP(nil, id-1, unit, []byte("\x04\x02zz"))
		switch addr {
		case 400:
			out = appendMBAP(out, id, unit, []byte{pdu[0] | 0x80, 2})
		case 500:
			continue
		default:
			out = appendMBAP(out, id, unit, []byte{pdu[0], 2, byte(addr >> 8), byte(addr)})
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}
