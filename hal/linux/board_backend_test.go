package linux

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestBoardLineOfTheContract(t *testing.T) {
	s := newSimChip(t, "contract", "RELAY", "DOOR")
	b := newBackend(t, "")
	tr := s.trace(t)
	relay := outputAt("contract", "RELAY", 0)
	relay.Line.ActiveLow, relay.Line.Consumer = true, "sp:pump:relay-1"
	out := opened[hal.Line](t, b, relay)
	if !s.level(t, 0) {
		t.Error("active low and off: the pin is low")
	}
	if err := out.Set(t.Context(), true); err != nil || s.level(t, 0) {
		t.Errorf("on: got %v, pin %v", err, s.level(t, 0))
	}
	if on, err := out.Get(t.Context()); !on || err != nil {
		t.Errorf("got %v, %v, want on", on, err)
	}
	if got := strings.Join(tr.of(t, 0), ","); got != "set 1,out,set 0" {
		t.Errorf("trace: got %s", got)
	}
	if _, err := b.Open(t.Context(), relay); !codeIs(err, CodeBusy) || !strings.Contains(err.Error(), "sp:pump:relay-1") {
		t.Errorf("second request: got %v, want busy by the consumer", err)
	}
	if _, err := out.Edges(t.Context()); !codeIs(err, CodeUnsupported) {
		t.Errorf("edges of an output: got %v", err)
	}
	in := inputAt("contract", "DOOR")
	in.Line.Bias, in.Line.Debounce = "pull-up", hal.Duration(time.Millisecond)
	door := opened[hal.Line](t, b, in)
	if on, err := door.Get(t.Context()); !on || err != nil {
		t.Errorf("pulled up: got %v, %v", on, err)
	}
	if err := door.Set(t.Context(), true); !codeIs(err, CodeDenied) {
		t.Errorf("write to an input: got %v, want denied", err)
	}
	edges, err := door.Edges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.pull(t, 1, false)
	var got [8]hal.Event
	if n, err := edges.Read(t.Context(), got[:]); n != 1 || got[0].Edge != hal.Falling || got[0].Seq != 1 || got[0].Mono == 0 || err != nil {
		t.Errorf("got %d %+v, %v, want one falling edge", n, got[0], err)
	}
	if err := edges.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := edges.Read(t.Context(), got[:]); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
	if again, err := door.Edges(t.Context()); err != nil {
		t.Errorf("a second reader after the first: %v", err)
	} else {
		s.pull(t, 1, true)
		if n, err := again.Read(t.Context(), got[:]); n != 1 || got[0].Edge != hal.Rising || err != nil {
			t.Errorf("second reader: got %d %+v, %v", n, got[0], err)
		}
	}
}

func TestBoardPluggedOutChipIsGoneAndComesBackUnderItsName(t *testing.T) {
	s := newSimChip(t, "hotplug", "DOOR")
	b := newBackend(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	changes := b.Changes(ctx)
	r := inputAt("hotplug", "DOOR")
	door := opened[hal.Line](t, b, r)
	edges, err := door.Edges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		var got [8]hal.Event
		_, err := edges.Read(context.Background(), got[:])
		ended <- err
	}()
	put(t, s.config+"/live", "0")
	select {
	case err := <-ended:
		if !codeIs(err, CodeGone) {
			t.Errorf("waiting reader: got %v, want gone", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a waiting reader did not notice")
	}
	if _, err := door.Get(t.Context()); !codeIs(err, CodeGone) {
		t.Errorf("get: got %v, want gone", err)
	}
	if _, err := b.Open(t.Context(), r); !codeIs(err, CodeGone) {
		t.Errorf("open: got %v, want gone", err)
	}
	door.Close()
	put(t, s.config+"/live", "1")
	for c := range changes {
		if c.Present && strings.Contains(c.Node, "gpiochip") {
			break
		}
	}
	opened[hal.Line](t, b, r)
	cancel()
	for range changes { // ends with the context
	}
}

func TestBoardI2COfTheContractRefusesAnAddressThatADriverTakes(t *testing.T) {
	onBoard(t, "i2c_dev", "lab_i2c chip=0x48,0x50,0x76 width=1,1,1", "lm75")
	b := newBackend(t, "")
	r := i2cAt(labI2C, 0x48)
	chip := opened[hal.Bus](t, b, r)
	ops := []hal.Op{{Write: []byte{0x10, 7, 8}}, {Write: []byte{0x10}, Read: 2}}
	if err := chip.Do(t.Context(), ops); err != nil || !bytes.Equal(ops[1].Data, []byte{7, 8}) {
		t.Errorf("got %x, %v, want 0708 in one transfer", ops[1].Data, err)
	}
	a, err := b.findAdapter(labI2C, "")
	if err != nil {
		t.Fatal(err)
	}
	bus := "/sys/bus/i2c/devices/i2c-" + strconv.Itoa(a.n)
	put(t, bus+"/new_device", "lm75 0x48")
	if err := chip.Do(t.Context(), ops); !codeIs(err, CodeBusy) || !strings.Contains(err.Error(), "lm75") {
		t.Errorf("while granted: got %v, want busy by lm75", err)
	}
	if _, err := b.Open(t.Context(), r); !codeIs(err, CodeBusy) {
		t.Errorf("open: got %v, want busy", err)
	}
	put(t, bus+"/delete_device", "0x48")
	if err := chip.Do(t.Context(), ops); err != nil {
		t.Errorf("driver gone again: got %v", err)
	}
	r.I2C.Addr = 0x22
	nobody := opened[hal.Bus](t, b, r)
	if err := nobody.Do(t.Context(), ops); !codeIs(err, CodeNACK) {
		t.Errorf("nobody there: got %v, want nack", err)
	}
	for number, want := range map[string]Code{"121": CodeNACK, "5": CodeNACK, "110": CodeTimeout, "11": CodeStuck, "95": CodeUnsupported, "16": CodeBusy} {
		put(t, "/sys/module/lab_i2c/parameters/err", number)
		put(t, "/sys/module/lab_i2c/parameters/fail", "1")
		if err := chip.Do(t.Context(), ops); !codeIs(err, want) {
			t.Errorf("errno %s: got %v, want %s", number, err, want)
		}
	}
}

func TestBoardSMBusAdapterAndCombinedTransfersAgree(t *testing.T) {
	onBoard(t, "i2c_dev", "i2c_stub chip_addr=0x51", "lab_i2c chip=0x48,0x50,0x76 width=1,1,1")
	b := newBackend(t, "")
	stub := opened[hal.Bus](t, b, i2cAt(stubI2C, 0x51))
	full := opened[hal.Bus](t, b, i2cAt(labI2C, 0x50))
	for _, n := range []int{1, 3, 8, 32} {
		w := append([]byte{0x40}, bytes.Repeat([]byte{byte(n), 0xa5}, 16)[:n]...)
		var got [2][]byte
		for i, u := range []hal.Bus{stub, full} {
			ops := []hal.Op{{Write: w}, {Write: w[:1], Read: n}}
			if err := u.Do(t.Context(), ops); err != nil {
				t.Fatalf("%d bytes on bus %d: %v", n, i, err)
			}
			got[i] = ops[1].Data
		}
		if !bytes.Equal(got[0], got[1]) || !bytes.Equal(got[0], w[1:]) {
			t.Errorf("%d bytes: SMBus %x, I2C %x, want %x", n, got[0], got[1], w[1:])
		}
	}
	if err := stub.Do(t.Context(), []hal.Op{{Write: []byte{1, 2}, Read: 4}}); !codeIs(err, CodeUnsupported) {
		t.Errorf("a shape without a call: got %v, want unsupported", err)
	}
}

func TestBoardUnmodifiedDriverReadsAChipOnItsGrantedAddress(t *testing.T) {
	onBoard(t, "i2c_dev", "lab_i2c chip=0x48,0x50,0x76 width=1,1,1")
	b := newBackend(t, "")
	chip := opened[hal.Bus](t, b, i2cAt(labI2C, 0x76))
	model := bmp280()
	for at := 0x80; at < 0x100; at += 16 {
		if err := chip.Do(t.Context(), []hal.Op{{Write: append([]byte{byte(at)}, model.b[at:at+16]...)}}); err != nil {
			t.Fatal(err)
		}
	}
	// The fixture writes on where the pointer stands, so the driver's pairs land beside their registers: only what
	// it reads before that is compared.
	s := opened[hal.Sensor](t, b, driverAt("bmp280", "temperature", labI2C))
	v, err := s.Read(t.Context())
	if err != nil || v.Num < -300 || v.Num > 300 {
		t.Errorf("got %+v, %v, want a temperature", v, err)
	}
}

func TestBoardCANOfTheContract(t *testing.T) {
	onBoard(t, "vcan", "can_raw")
	if out, err := command(t, "ip", "link", "add", "vcan8", "type", "vcan"); err != nil {
		t.Skipf("SKIPPED: no vcan interface: %s", out)
	}
	t.Cleanup(func() { command(t, "ip", "link", "del", "vcan8") })
	b := newBackend(t, "")
	r := hal.Resource{Name: "body", Kind: KindCAN, CAN: &hal.CANPart{Interface: "vcan8", RX: []hal.IDMask{{ID: 0x100, Mask: 0x700}}}}
	rx := opened[hal.Bus](t, b, r)
	if err := rx.Do(t.Context(), []hal.Op{{ID: 1}}); !codeIs(err, CodeGone) {
		t.Errorf("interface down: got %v, want gone", err)
	}
	if out, err := command(t, "ip", "link", "set", "vcan8", "up"); err != nil {
		t.Fatal(out)
	}
	tx := opened[hal.Bus](t, b, hal.Resource{Name: "all", Kind: KindCAN, CAN: &hal.CANPart{Interface: "vcan8"}})
	frames := []hal.Op{{ID: 0x123 | hal.CANExtended}, {ID: 0x101 | hal.CANRemote}, {ID: 0x700}, {ID: 0x1f0, Write: []byte("ok")}}
	if err := tx.Do(t.Context(), frames); err != nil {
		t.Fatal(err)
	}
	hears, err := rx.(hal.FrameSource).Frames(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var f [1]hal.Event
	if _, err := hears.Read(t.Context(), f[:]); err != nil || f[0].ID != 0x1f0 || string(f[0].Data) != "ok" {
		t.Errorf("got %+v, %v, want only the standard data frame that the filter lets pass", f[0], err)
	}
	if err := tx.Do(t.Context(), []hal.Op{{ID: 0x800}}); !codeIs(err, CodeRange) {
		t.Errorf("an identifier of 12 bits: got %v, want range", err)
	}
}

func TestBoardScanShowsTheSimulatorsAndProbesOnlyWhenAsked(t *testing.T) {
	onBoard(t, "i2c_dev", "lab_i2c chip=0x48,0x50,0x76 width=1,1,1", "lab_spi")
	s := newSimChip(t, "scan", "DOOR", "")
	s.request(t, 1, lineConfig{consumer: "kettle", out: true})
	b := newBackend(t, "")
	before := line(t, "/sys/module/lab_i2c/parameters/xfers")
	list, err := b.Scan(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if after := line(t, "/sys/module/lab_i2c/parameters/xfers"); after != before {
		t.Errorf("a scan without probe moved %s transfers to %s", before, after)
	}
	text := func(list []hal.Found) string {
		var s strings.Builder
		for _, f := range list {
			s.WriteString(string(f.Kind))
			for _, m := range f.Match {
				s.WriteString(" " + m.Key + "=" + m.Value)
			}
			s.WriteString(" holder=" + f.Holder + "\n")
		}
		return s.String()
	}
	for _, want := range []string{"line chip=scan line=DOOR holder=\n", "line chip=scan offset=1 holder=kettle\n", "i2c adapter=" + labI2C + " holder=\n", "spi controller="} {
		if !strings.Contains(text(list), want) {
			t.Errorf("got\n%s\nwant %q", text(list), want)
		}
	}
	if list, err = b.Scan(t.Context(), true); err != nil || !strings.Contains(text(list), "addr=0x50") || strings.Contains(text(list), "addr=0x22") {
		t.Errorf("probe: got %v and\n%s", err, text(list))
	}
}

func TestBoardAdoptedLineIsTheSameLineAndNotAnother(t *testing.T) {
	s := newSimChip(t, "adopt", "RELAY", "OTHER")
	b := newBackend(t, "")
	r := outputAt("adopt", "RELAY", 1)
	first := opened[hal.Line](t, b, r)
	fd, safe := first.(hal.Holder).FD(1)
	if fd < 0 || safe.Bits != 1 || safe.Mask != 1 {
		t.Fatalf("got %d, %+v, want the safe level in the action", fd, safe)
	}
	dup := func() int {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	kept, spare, third := dup(), dup(), dup()
	tr := s.trace(t)
	first.Close()
	wrong := outputAt("adopt", "OTHER", 1)
	if _, err := b.Adopt(t.Context(), wrong, spare); err == nil {
		t.Error("a descriptor of RELAY was adopted as OTHER")
	}
	wrong = outputAt("adopt", "RELAY", 1)
	wrong.Line.ActiveLow = true
	if _, err := b.Adopt(t.Context(), wrong, third); !codeIs(err, CodeBusy) {
		t.Errorf("another polarity: got %v, want a refusal", err)
	}
	for _, fd := range []int{spare, third} { // a refusal leaves them to their holder
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
	again, err := b.Adopt(t.Context(), r, kept)
	if err != nil {
		t.Fatal(err)
	}
	if on, err := again.(hal.Line).Get(t.Context()); !on || err != nil {
		t.Errorf("adopted: got %v, %v, want on", on, err)
	}
	if got := tr.of(t, 0); len(got) != 0 {
		t.Errorf("adoption moved the pin: %v", got)
	}
	again.Close()
}
