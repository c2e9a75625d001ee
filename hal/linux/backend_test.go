package linux

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newBackend(t *testing.T, root string) *Backend {
	t.Helper()
	b, err := New(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// opened opens a resource as the type that its kind promises and closes it at the end.
func opened[T interface{ Close() error }](t *testing.T, b *Backend, r Resource) T {
	t.Helper()
	got, err := b.Open(r)
	if err != nil {
		t.Fatal(err)
	}
	it, ok := got.(T)
	if !ok {
		t.Fatalf("%s: got a %T", r.Name, got)
	}
	t.Cleanup(func() { it.Close() })
	return it
}

func codeIs(err error, want Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == want
}

func TestSensorsOfEachSubsystemReadAndSayTheirUnit(t *testing.T) {
	t.Parallel()
	b := newBackend(t, board(t).root)
	iio := newBackend(t, adc(t).root)
	for name, c := range map[string]struct {
		b     *Backend
		m     Match
		v     float64
		scale float64
		unit  string
	}{
		"hwmon":   {b, Match{Source: "hwmon", Device: "lm75", Path: "i2c-1-0048", Channel: "temp1_input"}, 21500, 1e-3, "Cel"},
		"thermal": {b, Match{Source: "thermal", Device: "cpu-thermal"}, 48312, 1e-3, "Cel"},
		"power":   {b, Match{Source: "power", Device: "BAT0", Channel: "voltage_now"}, 12340000, 1e-6, "V"},
		"w1":      {b, Match{Source: "w1", Device: "28-0316a279d4ff"}, 23187, 1e-3, "Cel"},
		"iio":     {iio, Match{Source: "iio", Device: "tank", Channel: "voltage0"}, 2970, 1e-3, "V"},
	} {
		s := opened[Sensor](t, c.b, Resource{Name: name, Kind: KindSensor, Match: c.m})
		v, err := s.Read(t.Context())
		if scale, unit := s.Unit(); v != c.v || scale != c.scale || unit != c.unit || err != nil {
			t.Errorf("%s: got %v times %v %s, %v, want %v times %v %s", name, v, scale, unit, err, c.v, c.scale, c.unit)
		}
	}
}

func TestWhatTheBoardLacksIsSaidByNameWithItsCode(t *testing.T) {
	t.Parallel()
	b := newBackend(t, board(t).root)
	for name, c := range map[string]struct {
		r    Resource
		code Code
		says string
	}{
		"two sensors of one name":  {Resource{Kind: KindSensor, Match: Match{Source: "hwmon", Device: "lm75", Channel: "temp1_input"}}, CodeGone, "ambiguous"},
		"no such sensor":           {Resource{Kind: KindSensor, Match: Match{Source: "thermal", Device: "gpu"}}, CodeGone, "cpu-thermal"},
		"a way out of the folder":  {Resource{Kind: KindSensor, Match: Match{Source: "power", Device: "BAT0", Channel: "../x"}}, CodeRange, "no name"},
		"no such source":           {Resource{Kind: KindSensor, Match: Match{Source: "guess"}}, CodeUnsupported, "guess"},
		"no such driver":           {Resource{Kind: KindSensor, Match: Match{Source: "driver", Device: "bme999"}}, CodeGone, "bme280"},
		"no such quantity":         {Resource{Kind: KindSensor, Match: Match{Source: "driver", Device: "bme280", Channel: "taste"}}, CodeRange, "humidity"},
		"no GPIO chip":             {Resource{Kind: KindLine, Match: Match{Chip: "pinctrl-bcm2711", Line: "GPIO17"}}, CodeGone, "no GPIO chip"},
		"no such drive":            {Resource{Kind: KindLine, Wiring: Wiring{Drive: "hydraulic"}}, CodeUnsupported, "hydraulic"},
		"no I2C adapter":           {Resource{Kind: KindI2C, Match: Match{Adapter: "main", Addr: 0x40}}, CodeGone, "no I2C adapter"},
		"a reserved I2C address":   {Resource{Kind: KindI2C, Match: Match{Addr: 0x03}}, CodeRange, "0x03"},
		"a 10-bit I2C address":     {Resource{Kind: KindI2C, Match: Match{Addr: 0x178}}, CodeRange, "0x178"},
		"no SPI device":            {Resource{Kind: KindSPI, Match: Match{Controller: "spi@7e204000"}}, CodeGone, "no SPI device"},
		"no serial port":           {Resource{Kind: KindSerial, Match: Match{USBPort: "1-1.3"}, Wiring: Wiring{Mode: "9600-8N1"}}, CodeGone, "1-1.3"},
		"no serial mode":           {Resource{Kind: KindSerial, Wiring: Wiring{Mode: "fast"}}, CodeRange, "9600-8N1"},
		"no CAN interface":         {Resource{Kind: KindCAN, Match: Match{Interface: "can77"}}, CodeGone, "can77"},
		"a Modbus address of none": {Resource{Kind: KindModbus, Match: Match{Address: "meter"}}, CodeRange, "meter"},
		"no LED":                   {Resource{Kind: KindLED, Match: Match{Channel: "power"}}, CodeGone, "status"},
		"no PWM":                   {Resource{Kind: KindPWM, Match: Match{Chip: "pwm@1"}}, CodeGone, "pwm@1"},
		"no kind":                  {Resource{Kind: "watchdog"}, CodeUnsupported, "watchdog"},
	} {
		c.r.Name = "probe"
		_, err := b.Open(c.r)
		if !codeIs(err, c.code) || !strings.HasPrefix(err.Error(), "probe: ") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want code %s and %q", name, err, c.code, c.says)
		}
	}
	if _, err := b.Open(Resource{Kind: KindSensor, Match: Match{Source: "hwmon", Device: "lm75", Channel: "temp1_input"}}); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("got %v, want the ambiguity to be told from a missing device", err)
	}
}

func TestOutputsBeginSafeAndCarryTheirSafeAction(t *testing.T) {
	t.Parallel()
	h := board(t)
	b := newBackend(t, h.root)
	write(t, h.path("sys/class/leds/status/brightness"), "9\n")
	l := opened[Level](t, b, Resource{Name: "lamp", Kind: KindLED, Match: Match{Channel: "status"}, Safe: 0.2})
	if got, err := l.Get(t.Context()); got != 0.2 || err != nil {
		t.Errorf("at the start: got %v, %v, want the safe 0.2", got, err)
	}
	if err := l.Set(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	fd, safe, err := l.(Holder).FD(0.2)
	if err != nil || fd < 0 || string(safe.Bytes) != "3\n" {
		t.Errorf("got descriptor %d, %q, %v, want 3 of 15 to be written", fd, safe.Bytes, err)
	}
	if err := MakeSafe(fd, safe); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Get(t.Context()); got != 0.2 || err != nil {
		t.Errorf("after the safe action: got %v, %v, want 0.2", got, err)
	}
	if err := l.Set(t.Context(), 2); !codeIs(err, CodeRange) {
		t.Errorf("brightness 2: got %v, want range", err)
	}
}

func TestModbusUnitsShareOnePort(t *testing.T) {
	t.Parallel()
	far, path := newPTY(t)
	b := newBackend(t, "")
	unit(t, far, func(frame []byte) []byte {
		if frame[0] == 9 {
			return nil
		}
		return framed(frame[0], "\x03\x02\x00"+string(frame[:1]))
	})
	r := Resource{Name: "meter", Kind: KindModbus, Match: Match{Path: path, Unit: 3}, Wiring: Wiring{Mode: "19200-8E1"}}
	meter := opened[Bus](t, b, r)
	r.Match.Unit = 4
	other := opened[Bus](t, b, r)
	for want, u := range map[byte]Bus{3: meter, 4: other} {
		ops := []Op{{Fn: "read-holding", Addr: 1, N: 1}}
		if err := u.Do(t.Context(), ops); err != nil || string(ops[0].Got) != string([]byte{0, want}) {
			t.Errorf("unit %d: got %x, %v", want, ops[0].Got, err)
		}
	}
	for name, c := range map[string]struct {
		op   Op
		code Code
	}{
		"a register past the end":  {Op{Fn: "read-holding", Addr: 65535, N: 2}, CodeRange},
		"a function of the future": {Op{Fn: "reboot"}, CodeUnsupported},
	} {
		if err := meter.Do(t.Context(), []Op{c.op}); !codeIs(err, c.code) {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
	r.Match.Unit, r.Wiring.Mode = 5, "9600-8E1"
	if _, err := b.Open(r); !codeIs(err, CodeBusy) {
		t.Errorf("another mode on one port: got %v, want busy", err)
	}
	r.Match.Unit, r.Wiring.Mode = 9, "19200-8E1"
	silent := opened[Bus](t, b, r)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := silent.Do(ctx, []Op{{Fn: "read-holding", N: 1}}); !codeIs(err, CodeTimeout) {
		t.Errorf("no answer: got %v, want timeout", err)
	}
	far.Close()
	if err := meter.Do(t.Context(), []Op{{Fn: "read-holding", N: 1}}); !codeIs(err, CodeGone) {
		t.Errorf("plugged out: got %v, want gone", err)
	}
}

func TestSerialPortOfAnotherUserIsBusyAndPluggedOutIsGone(t *testing.T) {
	t.Parallel()
	far, path := newPTY(t)
	b := newBackend(t, "")
	r := Resource{Name: "scale", Kind: KindSerial, Match: Match{Path: path}, Wiring: Wiring{Mode: "9600-8N1"}}
	p := opened[Bus](t, b, r)
	if _, err := b.Open(r); !codeIs(err, CodeBusy) {
		t.Errorf("second user: got %v, want busy", err)
	}
	r.Wiring.RS485 = &RS485{RTSOnSend: true}
	if _, err := b.Open(r); err == nil {
		t.Error("second user with RS-485 passed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Do(ctx, []Op{{W: []byte("?"), Until: []byte("\n")}}); !codeIs(err, CodeTimeout) {
		t.Errorf("no answer: got %v, want timeout", err)
	}
	far.Close()
	if err := p.Do(t.Context(), []Op{{R: 1}}); !codeIs(err, CodeGone) {
		t.Errorf("plugged out: got %v, want gone", err)
	}
	if err := p.Do(t.Context(), []Op{{R: maxRead + 1}}); !codeIs(err, CodeRange) {
		t.Errorf("too much: got %v, want range", err)
	}
}

func TestScanNamesThingsAsTheOwnerWould(t *testing.T) {
	t.Parallel()
	list, err := newBackend(t, board(t).root).Scan(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range list {
		s := string(f.Kind)
		for _, m := range f.Match {
			s += " " + m.Key + "=" + m.Value
		}
		got = append(got, s+" "+f.Unit)
	}
	for _, want := range []string{"sensor hwmon=lm75 attr=temp1_input Cel", "sensor thermal=cpu-thermal Cel", "sensor w1=28-0316a279d4ff Cel", "sensor power=BAT0 attr=voltage_now V", "led led=status "} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("got\n%s\nwant %q among them", strings.Join(got, "\n"), want)
		}
	}
}

func TestDescriptorOfALineTellsItsChip(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		chip string
		line uint32
		ok   bool
	}{
		"pos:\t0\nflags:\t02000002\ngpio-chip:\tgpiochip3\ngpio-line:\t17\n": {"gpiochip3", 17, true},
		"pos:\t0\n":               {},
		"gpio-chip:\tgpiochip0\n": {chip: "gpiochip0"},
		"gpio-chip:\tg\ngpio-line:\t1\ngpio-line:\t2": {},
		"gpio-line:\tx\n": {},
	} {
		chip, line, ok := fdinfoLine(text)
		if ok != want.ok || ok && (chip != want.chip || line != want.line) {
			t.Errorf("%q: got %s %d %v, want %+v", text, chip, line, ok, want)
		}
	}
	if _, err := newBackend(t, filepath.Join(t.TempDir(), "none")).Scan(t.Context(), true); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a board without anything: got %v", err)
	}
}
