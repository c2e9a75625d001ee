package linux

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func boardI2C(t *testing.T, name string) *i2cBus {
	t.Helper()
	a, err := (&host{}).findAdapter(name, "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := (&host{}).openI2C(a, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

const (
	labI2C  = "sandpiper-lab-i2c"
	stubI2C = "SMBus stub driver"
)

func TestBoardI2CCombinedTransferReadsWhatWasWritten(t *testing.T) {
	onBoard(t, "i2c_dev", "lab_i2c chip=0x48,0x50,0x76 width=1,1,1")
	b := boardI2C(t, labI2C)
	if err := b.do(0x50, []hal.Op{{Write: []byte{0x10, 1, 2, 3}}}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if err := b.do(0x50, []hal.Op{{Write: []byte{0x10}, Data: got}}); err != nil || !bytes.Equal(got, []byte{1, 2, 3}) {
		t.Errorf("got %v, %v, want 1 2 3", got, err)
	}
	if err := b.do(0x33, []hal.Op{{Write: []byte{0}}}); !isNAK(err) {
		t.Errorf("nobody there: got %v, want a NAK", err)
	}
	put(t, "/sys/module/lab_i2c/parameters/err", "110")
	put(t, "/sys/module/lab_i2c/parameters/fail", "1")
	if err := b.do(0x50, []hal.Op{{Write: []byte{0}}}); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("stuck: got %v, want ETIMEDOUT", err)
	}
	if err := b.do(0x50, []hal.Op{{Write: []byte{0}}}); err != nil {
		t.Errorf("healed: got %v", err)
	}
	if err := b.do(0x50, []hal.Op{{Data: make([]byte, maxI2CLength+1)}}); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("too long: got %v", err)
	}
	there, err := b.probe(0x50)
	if err != nil || !there {
		t.Errorf("probe 0x50: got %v, %v, want a chip", there, err)
	}
	if there, err := b.probe(0x21); err != nil || there {
		t.Errorf("probe 0x21: got %v, %v, want none", there, err)
	}
}

func TestBoardSMBusOnlyAdapterGivesTheSameBytesInTheShapesItHas(t *testing.T) {
	onBoard(t, "i2c_dev", "i2c_stub chip_addr=0x51")
	b := boardI2C(t, stubI2C)
	if b.funcs&funcI2C != 0 {
		t.Fatal("the stub knows I2C: this test tests nothing")
	}
	for _, n := range []int{1, 2, 8, 32} {
		w := append([]byte{0x20}, bytes.Repeat([]byte{byte(n)}, n)...)
		w[1] = 0xab
		if err := b.do(0x51, []hal.Op{{Write: w}}); err != nil {
			t.Fatalf("write %d: %v", n, err)
		}
		r := make([]byte, n)
		if err := b.do(0x51, []hal.Op{{Write: w[:1], Data: r}}); err != nil || (n != 2 && !bytes.Equal(r, w[1:])) {
			t.Errorf("read %d: got %x, %v, want %x", n, r, err, w[1:])
		}
		// The stub keeps a word register apart from its byte registers, so only the order within the word counts.
		if n == 2 && !bytes.Equal(r, w[1:]) {
			t.Errorf("word: got %x, want %x: the low byte is first on the wire", r, w[1:])
		}
	}
	if err := b.do(0x51, []hal.Op{{Write: []byte{1, 2}, Data: make([]byte, 1)}}); !errors.Is(err, errShape) {
		t.Errorf("two address bytes: got %v, want an unsupported shape", err)
	}
	if err := b.do(0x52, []hal.Op{{Write: []byte{1}, Data: make([]byte, 1)}}); !isNAK(err) {
		t.Errorf("nobody there: got %v", err)
	}
}

func TestBoardKernelDriverKeepsItsAddressAndItsSensorIsNamed(t *testing.T) {
	onBoard(t, "i2c_dev", "lab_i2c chip=0x48,0x50,0x76 width=1,1,1", "lm75")
	b := boardI2C(t, labI2C)
	bus := "/sys/bus/i2c/devices/i2c-" + strconv.Itoa(b.at.n)
	put(t, bus+"/new_device", "lm75 0x48")
	t.Cleanup(func() { put(t, bus+"/delete_device", "0x48") })
	if err := b.free(0x48); !errors.Is(err, CodeBusy) || !strings.Contains(err.Error(), "driver lm75") {
		t.Errorf("got %v, want the driver's name", err)
	}
	if err := b.free(0x50); err != nil {
		t.Errorf("free address: got %v", err)
	}
	d, err := (&host{}).findClass(&hwmonClass, "lm75", "")
	if err != nil {
		t.Fatal(err)
	}
	a, err := openAttribute(d.dir+"/temp1_input", os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.number(); err != nil {
		t.Error(err)
	}
}

func TestBoardSPILoopbackReturnsWhatIsSent(t *testing.T) {
	onBoard(t, "lab_spi")
	all := (&host{}).spiDevices()
	if len(all) == 0 {
		t.Fatal("no spidev")
	}
	d, err := newBackend(t, "").openSPI(&hal.SPIPart{Controller: all[0].key(), CS: all[0].n, Mode: 1, Hz: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	p := d.(*spiUnit)
	defer p.Close()
	w, r, apart := []byte{1, 2, 3}, make([]byte, 3), make([]byte, 2)
	if err := p.do([]hal.Op{{Write: w, Data: r}, {Write: []byte{9}}, {Data: apart}}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w, r) || !bytes.Equal(apart, []byte{0xff, 0xff}) {
		t.Errorf("got %x and %x, want %x and ffff", r, apart, w)
	}
	if err := p.do([]hal.Op{{Write: make([]byte, p.bufSize+1)}}); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("too long: got %v", err)
	}
	put(t, "/sys/module/lab_spi/parameters/fail", "1")
	if err := p.do([]hal.Op{{Write: w}}); err == nil {
		t.Errorf("fault: got %v", err)
	}
}

func TestBoardCANFiltersAndCountsWhatIsLost(t *testing.T) {
	onBoard(t, "vcan", "can_raw")
	if out, err := command(t, "ip", "link", "add", "vcan7", "type", "vcan"); err != nil {
		t.Skipf("SKIPPED: no vcan interface: %s", out)
	}
	t.Cleanup(func() { command(t, "ip", "link", "del", "vcan7") })
	if out, err := command(t, "ip", "link", "set", "vcan7", "up"); err != nil {
		t.Fatal(out)
	}
	open := func(rx ...hal.IDMask) *canUnit {
		d, err := openCAN(&hal.CANPart{Interface: "vcan7", RX: rx})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d.(*canUnit)
	}
	rx, tx := open(hal.IDMask{ID: 0x100, Mask: 0x700}), open()
	send := func(id uint32, data string) error { return tx.Do(t.Context(), []hal.Op{{ID: id, Write: []byte(data)}}) }
	for _, id := range []uint32{0x123, 0x321, 0x1ff} {
		if err := send(id, "1"); err != nil {
			t.Fatal(err)
		}
	}
	heard, err := rx.Frames(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got [1]hal.Event
	for _, want := range []uint32{0x123, 0x1ff} {
		if _, err := heard.Read(t.Context(), got[:]); err != nil || got[0].ID != want || time.Since(got[0].Time) > time.Minute {
			t.Errorf("got %+v, %v, want id %#x with its time", got[0], err, want)
		}
	}
	for range 20000 {
		_ = send(0x101, "12345678")
	}
	for got[0].Lost == 0 {
		if _, err := heard.Read(t.Context(), got[:]); err != nil {
			t.Fatal(err)
		}
		if err := send(0x102, ""); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	if _, err := openCAN(&hal.CANPart{Interface: "can9"}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no interface: got %v", err)
	}
}

func TestBoardIIODummyConvertsAndCaptures(t *testing.T) {
	onBoard(t, "industrialio", "iio_dummy", "iio_trig_hrtimer")
	const dummy = "/sys/kernel/config/iio/devices/dummy/tank"
	if err := os.Mkdir(dummy, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dummy) })
	b := newBackend(t, "")
	level := opened[hal.Sensor](t, b, sensorAt(hal.Source{IIO: "tank", Attr: "voltage0"}))
	v, err := level.Read(t.Context())
	if err != nil || v.Num == 0 {
		t.Errorf("got %+v, %v, want millivolts", v, err)
	}
	const trigger = "/sys/kernel/config/iio/triggers/hrtimer/beat"
	if err := os.Mkdir(trigger, 0o755); err != nil {
		t.Skipf("SKIPPED: no hrtimer trigger: %v", err)
	}
	t.Cleanup(func() { os.Remove(trigger) })
	before := monotonic()
	run, err := level.(Capturer).Capture("beat", 16)
	if err != nil {
		t.Fatal(err)
	}
	got, err := run.Read()
	if err != nil || len(got) == 0 || got[0].Mono < before || got[0].Mono > monotonic() {
		t.Errorf("got %+v, %v, want samples with the kernel's monotonic time after %d", got, err, before)
	}
	dummy61 := strings.HasPrefix(line(t, "/proc/sys/kernel/osrelease"), "6.1.") // its dummy converts all the same
	if _, err := level.Read(t.Context()); !codeIs(err, CodeBusy) && (err != nil || !dummy61) {
		t.Errorf("one-shot while the buffer runs: got %v, want busy", err)
	}
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := run.Read(); err != nil {
				done <- err
				return
			}
		}
	}()
	if err := run.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
	if _, err := level.Read(t.Context()); err != nil {
		t.Errorf("one-shot after the buffer: got %v", err)
	}
	two, err := (&host{}).findClass(&iioClass, "tank", "")
	if err != nil {
		t.Fatal(err)
	}
	both, err := captureIIO(two, []string{"voltage0", "accel_x"}, "", 16)
	if err != nil {
		t.Fatal(err)
	}
	points, err := both.read()
	if err != nil || len(points) == 0 || len(points[0].values) != 2 {
		t.Errorf("got %+v, %v, want two channels a sample", points, err)
	}
	both.Close()
}
