package linux

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/driver/driverreg"
	"periph.io/x/conn/v3/gpio"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/conn/v3/spi"
	_ "periph.io/x/host/v3/gpioioctl" // sysfs wants it to have looked first
	"periph.io/x/host/v3/sysfs"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Somebody else's code on the same kernel interfaces must see what ours sees, and leave what ours leaves. periph looks at its host once a
// process, so what it is to find is there before.
func TestBoardPeriphAndWeSeeTheSameBoard(t *testing.T) {
	onBoard(t, "i2c_dev", "lab_i2c chip=0x48,0x50,0x76 width=1,1,1", "lab_spi")
	chip := newSimChip(t, "oracle", "DOOR")
	caps := newLamp(t)
	if _, err := driverreg.Init(); err != nil {
		t.Fatal(err)
	}
	t.Run("i2c", sameI2C)
	t.Run("spi", sameSPI)
	t.Run("line", func(t *testing.T) { sameLineOf(t, chip) })
	t.Run("led", func(t *testing.T) { sameLED(t, caps) })
}

func sameI2C(t *testing.T) {
	b := newBackend(t, "")
	ours := map[uint16]hal.Bus{}
	for _, addr := range []uint16{0x48, 0x50, 0x76, 0x33} {
		ours[addr] = opened[hal.Bus](t, b, i2cAt(labI2C, int(addr)))
	}
	a, err := b.findAdapter(labI2C, "")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := sysfs.NewI2C(a.n)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	sides := [2]func(addr uint16, w, r []byte) error{
		func(addr uint16, w, r []byte) error {
			ops := []hal.Op{{Write: w, Read: len(r)}}
			err := ours[addr].Do(t.Context(), ops)
			copy(r, ops[0].Data)
			return err
		}, theirs.Tx,
	}
	moved := func() int {
		n, err := strconv.Atoi(line(t, "/sys/module/lab_i2c/parameters/xfers"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	random := rand.New(rand.NewPCG(3, 8)) //nolint:gosec // the same transfers each time
	for i := range 150 {
		addr := []uint16{0x48, 0x50, 0x76, 0x33}[random.IntN(4)]
		w, n := make([]byte, random.IntN(33)), 1+random.IntN(32)
		for j := range w {
			w[j] = byte(random.Uint32())
		}
		at := byte(random.Uint32())
		var got [2][]byte
		var failed [2]bool
		var cost [2]int
		for side, tx := range sides { // from the same register on, the same bytes
			_ = sides[i%2](addr, []byte{at}, nil) // nobody is at 0x33
			before := moved()
			got[side] = make([]byte, n)
			failed[side] = tx(addr, w, got[side]) != nil
			cost[side] = moved() - before
		}
		if !bytes.Equal(got[0], got[1]) || failed[0] != failed[1] || cost[0] != cost[1] {
			t.Fatalf("transfer %d, %d bytes to %#x and %d back: ours %x, failed %v, %d on the bus; theirs %x, failed %v, %d", i, len(w), addr, n,
				got[0], failed[0], cost[0], got[1], failed[1], cost[1])
		}
		all := [2][]byte{make([]byte, 256), make([]byte, 256)}
		for side, tx := range sides {
			if err := tx(addr, []byte{0}, all[side]); (err != nil) != (addr == 0x33) {
				t.Fatalf("read all of %#x: %v", addr, err)
			}
		}
		if !bytes.Equal(all[0], all[1]) {
			t.Fatalf("after transfer %d: ours sees %x, theirs %x", i, all[0], all[1])
		}
	}
}

func sameSPI(t *testing.T) {
	h := &host{}
	d, err := h.findSPI(h.spiDevices()[0].key(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(d.node, "/dev/spidev"), ".")
	bus, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	port, err := sysfs.NewSPI(bus, d.n)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	theirs, err := port.Connect(physic.MegaHertz, spi.Mode1, 8)
	if err != nil {
		t.Fatal(err)
	}
	ours := opened[*spiUnit](t, newBackend(t, ""), hal.Resource{Name: "flash", Kind: KindSPI, SPI: &hal.SPIPart{Path: d.node, Mode: 1, Hz: 1_000_000}})
	limit := ours.bufSize
	for _, n := range []int{1, 2, 64, limit} {
		w := bytes.Repeat([]byte{0xa5, byte(n)}, n)[:n]
		a, b := make([]byte, n), make([]byte, n)
		if err := ours.do([]hal.Op{{Write: w, Data: a}}); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		if err := theirs.Tx(w, b); err != nil {
			t.Errorf("%d bytes, theirs: %v", n, err)
		}
		if !bytes.Equal(a, b) || !bytes.Equal(a, w) {
			t.Errorf("%d bytes: ours and theirs differ, or what came is not what went", n)
		}
	}
	ours.bufSize *= 2 // the kernel's word, not ours
	if err := ours.do([]hal.Op{{Write: make([]byte, limit+1)}}); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("more than bufsiz: got %v of the kernel, want EMSGSIZE", err)
	}
}

func sameLineOf(t *testing.T, chip simChip) {
	trace := chip.trace(t)
	theirs := sysfs.Pins[trace.base]
	if theirs == nil {
		t.Fatalf("periph knows no line %d: it looked before the chip was made", trace.base)
	}
	pulls := []bool{true, false, true}
	var saw [2][]bool
	r := chip.request(t, 0, lineConfig{})
	for _, up := range pulls {
		chip.pull(t, 0, up)
		on, err := r.get()
		if err != nil {
			t.Fatal(err)
		}
		saw[0] = append(saw[0], on)
	}
	if err := r.Close(); err != nil { // the kernel gives a line to one
		t.Fatal(err)
	}
	if err := theirs.In(gpio.PullNoChange, gpio.NoEdge); err != nil {
		t.Fatal(err)
	}
	for _, up := range pulls {
		chip.pull(t, 0, up)
		saw[1] = append(saw[1], theirs.Read() == gpio.High)
	}
	if !slices.Equal(saw[0], saw[1]) || !slices.Equal(saw[0], pulls) {
		t.Errorf("pulled up %v: ours %v, theirs %v", pulls, saw[0], saw[1])
	}
	if _, err := chip.tryRequest(0, lineConfig{}); !codeIs(err, CodeBusy) || !strings.Contains(err.Error(), "sysfs") {
		t.Errorf("while the other has it: got %v, want busy by sysfs", err)
	}
	var left [2][]string
	for _, on := range pulls {
		if err := theirs.Out(gpio.Level(on)); err != nil || chip.level(t, 0) != on {
			t.Errorf("theirs drives %v: %v, the pin %v", on, err, chip.level(t, 0))
		}
	}
	left[1] = levelsOf(trace.of(t, 0))
	put(t, "/sys/class/gpio/unexport", strconv.Itoa(trace.base))
	trace = chip.trace(t)
	r = chip.request(t, 0, lineConfig{out: true, value: pulls[0]})
	for _, on := range pulls {
		if err := r.Set(t.Context(), on); err != nil || chip.level(t, 0) != on {
			t.Errorf("ours drives %v: %v, the pin %v", on, err, chip.level(t, 0))
		}
	}
	left[0] = levelsOf(trace.of(t, 0))
	if !slices.Equal(left[0], left[1]) {
		t.Errorf("the pin: ours %v, theirs %v", left[0], left[1])
	}
}

// levelsOf are the levels that a line was driven to, each once.
func levelsOf(did []string) []string {
	return slices.Compact(slices.DeleteFunc(did, func(s string) bool { return !strings.HasPrefix(s, "set ") }))
}

func sameLED(t *testing.T, caps lamp) {
	theirs, err := sysfs.LEDByName(caps.name)
	if err != nil {
		t.Fatalf("periph looked before the lamp was made: %v", err)
	}
	ours := opened[hal.Output](t, newBackend(t, ""), hal.Resource{Name: "lamp", Kind: KindLED, Safe: new(float64), LED: caps.name})
	caps.changes(t, 100*time.Millisecond)
	for i, on := range []bool{true, false, true, false} {
		level, share := gpio.Low, 0.0
		if on {
			level, share = gpio.High, 1
		}
		if i%2 == 0 {
			err = ours.Set(t.Context(), share)
		} else {
			err = theirs.Out(level)
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := ours.Get(t.Context())
		if read := theirs.Read(); err != nil || got != share || read != level {
			t.Errorf("step %d: ours %v, %v, theirs %v, want %v", i, got, err, read, on)
		}
		if did := caps.changes(t, 100*time.Millisecond); !slices.Equal(did, []bool{on}) {
			t.Errorf("step %d: the lamp did %v, want %v", i, did, on)
		}
	}
}
