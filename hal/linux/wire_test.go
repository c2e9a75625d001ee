package linux

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestSMBusCallsPutTheSameBytesOnTheWire(t *testing.T) {
	t.Parallel()
	all := uint32(funcReadByte | funcWriteByte | funcReadByteD | funcWriteByteD | funcReadWordD | funcWriteWordD | funcReadI2CBlk | funcWriteI2CBlk)
	for name, c := range map[string]struct {
		funcs uint32
		w, r  int
		size  uint32
		ok    bool
	}{
		"bare read":              {all, 0, 1, smbusByte, true},
		"command":                {all, 1, 0, smbusByte, true},
		"register":               {all, 1, 1, smbusByteData, true},
		"two registers":          {all, 1, 2, smbusWordData, true},
		"two without words":      {all &^ funcReadWordD, 1, 2, smbusI2CBlock, true},
		"block":                  {all, 1, 32, smbusI2CBlock, true},
		"write register":         {all, 2, 0, smbusByteData, true},
		"write two":              {all, 3, 0, smbusWordData, true},
		"write two without word": {all &^ funcWriteWordD, 3, 0, smbusI2CBlock, true},
		"write block":            {all, 33, 0, smbusI2CBlock, true},
		"block too long":         {all, 1, 33, 0, false},
		"write too long":         {all, 34, 0, 0, false},
		"two address bytes":      {all, 2, 1, 0, false},
		"two bare bytes":         {all, 0, 2, 0, false},
		"nothing":                {all, 0, 0, 0, false},
		"function missing":       {funcReadByte, 1, 1, 0, false},
	} {
		got := smbusSize(c.funcs, c.w, c.r)
		if (got != smbusNone) != c.ok || c.ok && got != c.size {
			t.Errorf("%s: got size %d, want %d, ok %v", name, got, c.size, c.ok)
		}
	}
}

func TestUeventsOfTheKernel(t *testing.T) {
	t.Parallel()
	b := []byte("add@/devices/platform/gpio-sim.0/gpiochip1\x00ACTION=add\x00DEVPATH=/devices/platform/gpio-sim.0/gpiochip1\x00SUBSYSTEM=gpio\x00DEVNAME=gpiochip1\x00DRIVER=x\x00SEQNUM=4711\x00")
	want := uevent{action: "add", devpath: "/devices/platform/gpio-sim.0/gpiochip1", subsystem: "gpio"}
	if got, err := parseUevent(b); got != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for name, b := range map[string][]byte{
		"empty":              nil,
		"udev's own":         []byte("libudev\x00\xfe\xed\xca\xfe"),
		"no path":            []byte("add@\x00"),
		"no end":             []byte("add@/devices/x"),
		"field without end":  []byte("add@/devices/x\x00SUBSYSTEM=gpio"),
		"longer than a page": bytes.Repeat([]byte("a"), maxUevent+1),
	} {
		if got, err := parseUevent(b); err == nil {
			t.Errorf("%s: passed as %+v", name, got)
		}
	}
}

func FuzzUevent(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00SUBSYSTEM=gpio\x00DEVNAME=gpiochip1\x00"))
	f.Add([]byte("libudev\x00"))
	f.Add([]byte("@/\x00=\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := parseUevent(b)
		if err == nil && (u.action == "" || u.devpath == "" || u.devpath[0] != '/') {
			t.Fatalf("%q passed as %+v", b, u)
		}
	})
}

func TestCANFramesSurviveTheirEncoding(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		id   uint32
		data []byte
	}{
		"standard": {0x321, []byte{1, 2, 3}},
		"extended": {canEFF | 0x1fffffff, []byte("12345678")},
		"remote":   {canRTR | 1, []byte{}},
	} {
		b, err := encodeCAN(c.id, c.data)
		if err != nil {
			t.Fatal(err)
		}
		if id, data, ok := decodeCAN(b); !ok || id != c.id || !bytes.Equal(data, c.data) {
			t.Errorf("%s: got %#x %x, %v, want %#x %x", name, id, data, ok, c.id, c.data)
		}
	}
	for name, c := range map[string]struct {
		id   uint32
		data []byte
	}{
		"identifier above 11 bits": {0x800, nil},
		"an error frame":           {canERR | 1, nil},
		"nine bytes":               {1, make([]byte, 9)},
	} {
		if _, err := encodeCAN(c.id, c.data); !errors.Is(err, unix.ERANGE) {
			t.Errorf("%s: got %v, want out of range", name, err)
		}
	}
	fd := make([]byte, canFDFrameSize)
	fd[0], fd[4], fd[71] = 7, 64, 9
	if _, data, ok := decodeCAN(fd); !ok || len(data) != 64 || data[63] != 9 {
		t.Errorf("FD: got %x, %v, want its 64 bytes", data, ok)
	}
	if _, _, ok := decodeCAN(make([]byte, 15)); ok {
		t.Error("half a frame passed")
	}
}

func FuzzCANFrame(f *testing.F) {
	f.Add(make([]byte, canFrameSize))
	f.Add(make([]byte, canFDFrameSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, data, ok := decodeCAN(b)
		if !ok || len(data) > 8 {
			return
		}
		if _, err := encodeCAN(id, data); err != nil {
			t.Fatalf("%x decodes to what cannot be sent: %v", b, err)
		}
	})
}

func TestEdgesAreDecodedFromWholeEventsOnly(t *testing.T) {
	t.Parallel()
	b := make([]byte, 2*gpioEventSize+10)
	b[8], b[20] = edgeRising, 7
	b[gpioEventSize+8], b[gpioEventSize+20] = edgeFalling, 8
	e := lineEdges{line: &lineResource{}}
	var out [4]hal.Event
	if n := e.decode(b, out[:]); n != 2 || out[0].Edge != hal.Rising || out[0].Lost != 6 || out[1].Edge != hal.Falling || out[1].Seq != 8 || out[1].Lost != 0 {
		t.Errorf("got %d edges %+v, want a rising 7 and a falling 8", n, out)
	}
	if n := e.decode(b, out[:1]); n != 1 {
		t.Errorf("room for one: got %d", n)
	}
}
