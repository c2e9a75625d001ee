package linux

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// appears waits until the kernel shows a file.
func appears(t *testing.T, path string) {
	t.Helper()
	for range 200 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatalf("no %s", path)
}

func TestBoardSensorIsFoundByItsNameWhateverNumberItHas(t *testing.T) {
	onBoard(t, "i2c_dev", "lab_i2c chip=0x48,0x50,0x76 width=1,1,1", "lm75")
	bus := boardI2C(t, labI2C)
	dir := filepath.Join("/sys/bus/i2c/devices", "i2c-"+strconv.Itoa(bus.at.n))
	chips := map[string]float64{"0048": 25000, "0050": 50000}
	b := newBackend(t, "")
	seen := map[string]map[string]bool{"0048": {}, "0050": {}}
	for _, order := range [][]string{{"0048", "0050"}, {"0050", "0048"}} {
		if err := errors.Join(bus.do(0x48, []hal.Op{{Write: []byte{0, 25, 0}}}), bus.do(0x50, []hal.Op{{Write: []byte{0, 50, 0}}})); err != nil {
			t.Fatal(err)
		}
		for _, addr := range order {
			put(t, dir+"/new_device", "lm75 0x"+addr)
		}
		for addr, want := range chips {
			at := strconv.Itoa(bus.at.n) + "-" + addr
			all, err := filepath.Glob("/sys/bus/i2c/devices/" + at + "/hwmon/hwmon*")
			if err != nil || len(all) != 1 {
				t.Fatalf("%s: got %v, %v, want one sensor", at, all, err)
			}
			seen[addr][filepath.Base(all[0])] = true
			v, err := opened[hal.Sensor](t, b, sensorAt(hal.Source{Hwmon: "lm75", Parent: "i2c-" + at, Attr: "temp1_input"})).Read(t.Context())
			if err != nil || v.Num < want || v.Num > want+1000 {
				t.Errorf("%s as %s: got %v m°C, %v, want %v", at, filepath.Base(all[0]), v.Num, err, want)
			}
		}
		if _, err := b.Open(t.Context(), sensorAt(hal.Source{Hwmon: "lm75", Attr: "temp1_input"})); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("two of one name: got %v, want an ambiguity", err)
		}
		for _, addr := range order {
			put(t, dir+"/delete_device", "0x"+addr)
		}
	}
	for addr, numbers := range seen {
		if len(numbers) != 2 {
			t.Errorf("%s was %v both times: this test shows nothing", addr, numbers)
		}
	}
}

func TestBoardThermometerThatLostItsSupplyGivesNoReading(t *testing.T) {
	onBoard(t, "w1_therm", "lab_w1")
	const one, two = "28-000000000001", "28-000000000002"
	const at, knobs = "/sys/bus/w1/devices/", "/sys/module/lab_w1/parameters/"
	appears(t, at+one+"/temperature")
	appears(t, at+two+"/temperature")
	b := newBackend(t, "")
	read := func(id string) (float64, error) {
		v, err := opened[hal.Sensor](t, b, sensorAt(hal.Source{W1: id})).Read(t.Context())
		return v.Num, err
	}
	put(t, knobs+"temp", "23125,85000")
	t.Cleanup(func() { put(t, knobs+"lost", "0,0") })
	for name, c := range map[string]struct {
		id, lost, features string
		want               float64
		refused            bool
	}{
		"a temperature":                             {id: one, lost: "0,0", features: "0", want: 23125},
		"a supply that failed":                      {id: one, lost: "1,0", features: "0", refused: true},
		"a supply that failed, and the kernel asks": {id: one, lost: "1,0", features: "1", refused: true},
		"a supply that failed, polled":              {id: one, lost: "1,0", features: "2", refused: true},
		"a real 85 °C that nobody can tell from it": {id: two, lost: "0,0", features: "0", refused: true},
		"a real 85 °C, and the kernel asks":         {id: two, lost: "0,0", features: "1", want: 85000},
	} {
		put(t, knobs+"lost", c.lost)
		put(t, at+c.id+"/features", c.features)
		v, err := read(c.id)
		if (err != nil) != c.refused || err == nil && v != c.want {
			t.Errorf("%s: got %v, %v, want %v, refused %v", name, v, err, c.want, c.refused)
		}
		put(t, at+c.id+"/features", "0")
	}
	if _, err := b.Open(t.Context(), sensorAt(hal.Source{W1: "28-00000000000f"})); !codeIs(err, CodeGone) {
		t.Errorf("a chip that is not there: got %v, want gone", err)
	}
	list, err := b.Scan(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range list {
		for _, m := range f.Match {
			if m.Key == "w1" && (m.Value == one || m.Value == two) {
				found++
			}
		}
	}
	if found != 2 {
		t.Errorf("a scan shows %d of two thermometers", found)
	}
}

func TestBoardPWMIsSetUpInTheOrderThatItsDriverTakes(t *testing.T) {
	onBoard(t, "lab_pwm")
	c, err := (&host{}).findClass(&pwmClass, "", "lab-pwm")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.dir, "pwm1") // channel 0 is the kill matrix's
	take := func(period time.Duration) *levelResource {
		t.Helper()
		p, err := openPWM(c, 1, period)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	state := func() string {
		return strings.Join([]string{line(t, dir+"/enable"), line(t, dir+"/duty_cycle"), line(t, dir+"/period"), line(t, dir+"/polarity")}, " ")
	}
	p := take(time.Millisecond)
	if err := errors.Join(p.Set(t.Context(), 0.9), p.Close()); err != nil {
		t.Fatal(err)
	}
	if got, want := state(), "1 900000 1000000 normal"; got != want {
		t.Errorf("on, and its holder gone: got %q, want %q: the state outlives who set it", got, want)
	}
	// What a wrong order meets:
	if err := setAttr("100000", dir, "period"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a period below the duty: got %v, want EINVAL", err)
	}
	if err := setAttr("inversed", dir, "polarity"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("another polarity while on: got %v, want EBUSY", err)
	}
	p = take(time.Millisecond)
	if got, want := state(), "1 900000 1000000 normal"; got != want {
		t.Errorf("taken again as it is: got %q, want %q untouched", got, want)
	}
	p.Close()
	if err := errors.Join(setAttr("0", dir, "enable"), setAttr("0", dir, "duty_cycle"), setAttr("inversed", dir, "polarity"), setAttr("1", dir, "enable")); err != nil {
		t.Fatal(err) // as a boot loader may leave it
	}
	p = take(100 * time.Microsecond)
	if got, want := state(), "0 0 100000 normal"; got != want {
		t.Errorf("other period and polarity: got %q, want %q", got, want)
	}
	if err := p.Set(t.Context(), 0.5); err != nil || state() != "1 50000 100000 normal" {
		t.Errorf("half: got %q, %v", state(), err)
	}
	p.Close()
	p = take(time.Millisecond)
	if err := errors.Join(p.Set(t.Context(), 0), p.Close()); err != nil {
		t.Fatal(err)
	}
}

// lamp is the lamp of a keyboard that a program makes: an LED of the kernel whose every change the program reads.
type lamp struct {
	file *os.File
	name string
}

func newLamp(t *testing.T) lamp {
	t.Helper()
	onBoard(t, "uinput")
	const (
		setEvents, setLED, setup, create, sysName = 0x40045564, 0x40045569, 0x405c5503, 0x5501, 0x8040552c
		lights, capsLock                          = 0x11, 1
	)
	f, err := os.OpenFile("/dev/uinput", os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fd, err := fdOf(f)
	if err != nil {
		t.Fatal(err)
	}
	device := make([]byte, 92) // struct uinput_setup: four numbers, a name, effects
	copy(device[8:], "lab keyboard")
	var name [64]byte
	if err := errors.Join(ioctlInt(fd, setEvents, lights), ioctlInt(fd, setLED, capsLock), ioctl(fd, setup, unsafe.Pointer(&device[0])),
		ioctlInt(fd, create, 0), ioctl(fd, sysName, unsafe.Pointer(&name[0]))); err != nil {
		t.Fatal(err)
	}
	l := lamp{f, string(name[:bytes.IndexByte(name[:], 0)]) + "::capslock"}
	appears(t, "/sys/class/leds/"+l.name+"/brightness")
	return l
}

// changes reads what the lamp did until nothing happens for a while.
func (l lamp) changes(t *testing.T, quiet time.Duration) (list []bool) {
	t.Helper()
	const tail = 8                                  // type, code and value, behind a time
	size := 2*int(unsafe.Sizeof(uintptr(0))) + tail // struct input_event
	b := make([]byte, 64*size)
	for {
		if err := l.file.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			t.Fatal(err)
		}
		n, err := l.file.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) || len(list) > 1000 {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		for e := b[:n]; len(e) >= size; e = e[size:] {
			if at := e[size-tail:]; binary.NativeEndian.Uint16(at) == 0x11 {
				list = append(list, binary.NativeEndian.Uint32(at[4:]) != 0)
			}
		}
	}
}

func TestBoardLEDIsTakenFromTheTriggerThatWouldWriteOverIt(t *testing.T) {
	onBoard(t, "ledtrig_timer")
	l := newLamp(t)
	dir := "/sys/class/leds/" + l.name
	put(t, dir+"/trigger", "timer")
	put(t, dir+"/delay_on", "20")
	put(t, dir+"/delay_off", "20")
	if err := l.file.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := l.file.Read(make([]byte, 24)); err != nil {
			t.Fatalf("the trigger does nothing: %v", err)
		}
	}
	out := opened[hal.Output](t, newBackend(t, ""), hal.Resource{Name: "lamp", Kind: KindLED, Safe: new(float64), LED: l.name})
	if got := line(t, dir+"/trigger"); !strings.Contains(got, "[none]") {
		t.Errorf("trigger: got %q, want none", got)
	}
	l.changes(t, 300*time.Millisecond)
	if err := out.Set(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := l.changes(t, 500*time.Millisecond); len(got) != 1 || !got[0] {
		t.Errorf("set on: got %v, want on, and nobody who writes over it", got)
	}
	if v, err := out.Get(t.Context()); v != 1 || err != nil {
		t.Errorf("got %v, %v, want on", v, err)
	}
	fd, safe := out.(hal.Holder).FD(0)
	if err := MakeSafe(fd, safe); err != nil {
		t.Fatal(err)
	}
	if got := l.changes(t, 100*time.Millisecond); len(got) != 1 || got[0] {
		t.Errorf("safe action: got %v, want off", got)
	}
	b := newBackend(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	changes := b.Changes(ctx)
	if err := l.file.Close(); err != nil { // plugged out
		t.Fatal(err)
	}
	gone := hal.Resource{Name: "lamp", Kind: KindLED, LED: l.name}
	for c := range changes {
		if !c.Present && c.Match(gone) {
			break
		}
	}
	if err := out.Set(t.Context(), 1); !codeIs(err, CodeGone) {
		t.Errorf("plugged out: got %v, want gone", err)
	}
	cancel()
	for range changes { // ends with the context
	}
}
