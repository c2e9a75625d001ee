package linux

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func FuzzDescriptorText(f *testing.F) {
	f.Add("pos:\t0\nflags:\t02000002\ngpio-chip:\tgpiochip0\ngpio-line:\t17\n")
	f.Add("gpio-line:\t1\ngpio-line:\t2\ngpio-chip:\tx")
	f.Add("gpio-line: -1\n:\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		chip, line, ok := fdinfoLine(text)
		if !ok {
			return
		}
		if !strings.Contains(text, chip) || !strings.Contains(text, strconv.Itoa(int(line))) && !strings.Contains(text, "0") {
			t.Fatalf("%q passed as line %d of %q", text, line, chip)
		}
		if again, n, ok := fdinfoLine("gpio-line:\t" + strconv.Itoa(int(line)) + "\ngpio-chip:\t" + chip + "\n"); !ok || again != chip || n != line {
			t.Fatalf("line %d of %q reads as %d of %q, %v", line, chip, n, again, ok)
		}
	})
}

func FuzzEdges(f *testing.F) {
	f.Add(make([]byte, 3*gpioEventSize), 2)
	f.Add([]byte{1}, 0)
	f.Fuzz(func(t *testing.T, b []byte, room int) {
		out := make([]hal.Event, min(max(room, 0), 64))
		e := lineEdges{line: &lineResource{}}
		if n := e.decode(b, out); n < 0 || n > len(out) || n > len(b)/gpioEventSize {
			t.Fatalf("got %d edges of %d bytes in room for %d", n, len(b), len(out))
		}
	})
}

func FuzzModbusTCPAnswer(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x00\x00\x06\x03\x03\x03\x04abcd"))
	f.Add([]byte("\x00\x01\x00\x00\xff\xff\x03"))
	f.Add([]byte("\x00\x01\x00\x00\x00\x00\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var buf [7 + maxPDU]byte
		id, unit, pdu, err := readMBAP(bytes.NewReader(b), buf[:])
		if err != nil {
			return
		}
		if got := appendMBAP(nil, id, unit, pdu); !bytes.HasPrefix(b, got) {
			t.Fatalf("%x passed as %x", b, got)
		}
		r := modbusRequest{fn: readHolding, count: 2}
		if data, err := r.decode(pdu); err == nil && len(data) != 4 {
			t.Fatalf("%x gave %d bytes for two registers", pdu, len(data))
		}
	})
}

func FuzzModbusRTUFrame(f *testing.F) {
	f.Add([]byte("\x03\x03\x04abcd"), true)
	f.Add([]byte("\x03\x83\x02"), true)
	f.Add([]byte("\x03\x03\x04abcd\x00\x00"), false)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			b = binary.LittleEndian.AppendUint16(bytes.Clone(b), crc16(b))
		}
		r, m := modbusRequest{fn: readHolding, count: 2}, &modbusRTU{}
		if len(b) > 1 {
			if n := r.answerLength(b[1:]); n < 0 || n > maxPDU {
				t.Fatalf("%x is said to have %d bytes", b, n)
			}
		}
		data, err := m.check(3, r, b)
		if err == nil && (len(data) != 4 || b[0] != 3 || crc16(b[:len(b)-2]) != binary.LittleEndian.Uint16(b[len(b)-2:])) {
			t.Fatalf("%x passed as %x", b, data)
		}
	})
}

// FuzzVaultMessage: whatever an agent says, the warden answers it, holds no more than it may, and goes on.
func FuzzVaultMessage(f *testing.F) {
	f.Add([]byte(`{"seq":1,"op":"keep","key":"lamp","safe":{"bytes":"MA=="},"state":"e30="}`), true)
	f.Add([]byte(`{"seq":2,"op":"keep","key":"lamp","safe":{"set":true,"Mask":1}}`), true)
	f.Add([]byte(`{"seq":3,"op":"drop","key":"lamp","hold":-5}`), false)
	f.Add([]byte(`{"op":"list"}`), true)
	f.Add([]byte(`{"op":"beat","hold":9223372036854775807}`), false)
	f.Add([]byte(`null`), true)
	f.Fuzz(func(t *testing.T, raw []byte, withFD bool) {
		if len(raw) == 0 || len(raw) > vaultPacket {
			return
		}
		v := NewVault(nil)
		defer v.release()
		k := keeperOf(t, v, time.Hour)
		defer k.conn.Close()
		k.seq = 0x5eed_5eed_5eed // the answer to raw is none to what is asked after it
		rights := []byte(nil)
		if withFD {
			null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			rights = unix.UnixRights(int(null.Fd()))
		}
		if err := unix.Sendmsg(int(k.conn.Fd()), raw, rights, nil, unix.MSG_NOSIGNAL); err != nil {
			t.Fatal(err)
		}
		if err := k.Keep("after", -1, hal.SafeAction{}, nil); err == nil { // no descriptor came with it
			t.Fatal("an entry without a descriptor was kept")
		}
		list, err := k.List()
		if err != nil || len(list) > 1 {
			t.Fatalf("after %q: got %d entries, %v", raw, len(list), err)
		}
		for _, e := range list {
			_ = unix.Close(e.FD)
			if len(e.Key) > maxKeptKey || len(e.State) > maxKeptNote {
				t.Fatalf("%q is held with %d bytes", e.Key, len(e.State))
			}
		}
	})
}

// FuzzWardensAnswer: whatever a warden says, the agent reads it, leaks no descriptor, and says an error or not.
func FuzzWardensAnswer(f *testing.F) {
	f.Add([]byte(`{"seq":1,"key":"lamp","state":"e30="}`), true)
	f.Add([]byte(`{"seq":1,"err":"no"}`), false)
	f.Add([]byte(`{"seq":2}`), true)
	f.Add([]byte(`{"seq":1,"key":"lamp"}`), false)
	f.Add([]byte(`[]`), true)
	f.Fuzz(func(t *testing.T, raw []byte, withFD bool) {
		if len(raw) == 0 || len(raw) > vaultPacket {
			return
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		k, err := NewKeeper(pair[0], time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		defer k.conn.Close()
		rights := []byte(nil)
		if withFD {
			rights = unix.UnixRights(pair[1])
		}
		if err := unix.Sendmsg(pair[1], raw, rights, nil, unix.MSG_NOSIGNAL); err != nil {
			t.Fatal(err)
		}
		last, err := json.Marshal(vaultAnswer{Seq: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendmsg(pair[1], last, nil, nil, unix.MSG_NOSIGNAL); err != nil {
			t.Fatal(err)
		}
		list, _ := k.List() // an error is as good as an answer
		for _, e := range list {
			if e.FD < 0 || e.Key == "" {
				t.Fatalf("%q passed as %+v", raw, e)
			}
			if err := unix.Close(e.FD); err != nil {
				t.Fatalf("the list gave a descriptor that is none: %v", err)
			}
		}
		_ = unix.Close(pair[1])
	})
}

// release lets go of all that is held, as the end of the warden's process does.
func (v *Vault) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for key, k := range v.kept {
		closeFD(k.fd)
		delete(v.kept, key)
	}
	if v.missing != nil {
		v.missing.Stop()
	}
}
