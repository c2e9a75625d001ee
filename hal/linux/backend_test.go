package linux

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func newBackend(t *testing.T, root string) *Board {
	t.Helper()
	b, err := NewBoard(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// opened opens a resource as the type that its kind promises and closes it at the end.
func opened[T hal.Device](t *testing.T, b *Board, r hal.Resource) T {
	t.Helper()
	got, err := b.Open(t.Context(), r)
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

// What follows is a resource of each kind, as far as the kernel's side looks at it.

func sensorAt(s hal.Source) hal.Resource {
	return hal.Resource{Name: "sensor", Kind: KindSensor, Sensor: &hal.SensorPart{Source: s}}
}

func driverAt(driver, quantity, adapter string) hal.Resource {
	r := sensorAt(hal.Source{Driver: driver, Attr: quantity})
	via := i2cAt(adapter, 0x76)
	r.Sensor.Via = &via
	return r
}

func i2cAt(adapter string, addr int) hal.Resource {
	return hal.Resource{Name: "chip", Kind: KindI2C, I2C: &hal.I2CPart{Adapter: adapter, Addr: addr, Timeout: 50 * time.Millisecond}}
}

func outputAt(chip, line string, safe float64) hal.Resource {
	return hal.Resource{Name: "relay", Kind: KindLine, Safe: &safe, Line: &hal.LinePart{Chip: chip, Line: line, Direction: hal.Out}}
}

func inputAt(chip, line string) hal.Resource {
	return hal.Resource{Name: "door", Kind: KindLine, Line: &hal.LinePart{Chip: chip, Line: line, Direction: hal.In}}
}

func serialAt(t *testing.T, path, mode string) *hal.SerialPart {
	t.Helper()
	return &hal.SerialPart{Path: path, Mode: mode}
}

func TestSensorsOfEachSubsystemRead(t *testing.T) {
	t.Parallel()
	b := newBackend(t, board(t).root)
	iio := newBackend(t, adc(t).root)
	for name, c := range map[string]struct {
		b *Board
		s hal.Source
		v float64
	}{
		"hwmon":   {b, hal.Source{Hwmon: "lm75", Parent: "i2c-1-0048", Attr: "temp1_input"}, 21500},
		"thermal": {b, hal.Source{Thermal: "cpu-thermal"}, 48312},
		"power":   {b, hal.Source{Power: "BAT0", Attr: "voltage_now"}, 12340000},
		"w1":      {b, hal.Source{W1: "28-0316a279d4ff"}, 23187},
		"iio":     {iio, hal.Source{IIO: "tank", Attr: "voltage0"}, 2970},
	} {
		if v, err := opened[hal.Sensor](t, c.b, sensorAt(c.s)).Read(t.Context()); v.Num != c.v || v.Time.IsZero() || v.Mono == 0 || err != nil {
			t.Errorf("%s: got %+v, %v, want %v with both times", name, v, err, c.v)
		}
	}
}

func TestWhatTheBoardLacksIsSaidByNameWithItsCode(t *testing.T) {
	t.Parallel()
	b := newBackend(t, board(t).root)
	lm75 := sensorAt(hal.Source{Hwmon: "lm75", Attr: "temp1_input"})
	hydraulic, scale := outputAt("", "", 0), serialAt(t, "", "9600-8N1")
	hydraulic.Line.Drive = "hydraulic"
	scale.USB.Port = "1-1.3"
	for name, c := range map[string]struct {
		r    hal.Resource
		code Code
		says string
	}{
		"two sensors of one name":  {lm75, CodeGone, "ambiguous"},
		"no such sensor":           {sensorAt(hal.Source{Thermal: "gpu"}), CodeGone, "cpu-thermal"},
		"a way out of the folder":  {sensorAt(hal.Source{Power: "BAT0", Attr: "../x"}), CodeRange, "no name"},
		"no source":                {sensorAt(hal.Source{}), CodeUnsupported, "source"},
		"no such driver":           {driverAt("bme999", "temperature", "main"), CodeGone, "bme280"},
		"no such quantity":         {driverAt("bme280", "taste", "main"), CodeRange, "humidity"},
		"no adapter of a driver":   {driverAt("bme280", "humidity", "main"), CodeGone, "no I2C adapter"},
		"no GPIO chip":             {outputAt("pinctrl-bcm2711", "GPIO17", 0), CodeGone, "no GPIO chip"},
		"no such drive":            {hydraulic, CodeUnsupported, "hydraulic"},
		"no I2C adapter":           {i2cAt("main", 0x40), CodeGone, "no I2C adapter"},
		"a reserved I2C address":   {i2cAt("main", 0x03), CodeRange, "0x03"},
		"no SPI device":            {hal.Resource{Kind: KindSPI, SPI: &hal.SPIPart{Controller: "spi@7e204000"}}, CodeGone, "no SPI device"},
		"no serial port":           {hal.Resource{Kind: KindSerial, Serial: scale}, CodeGone, "1-1.3"},
		"no CAN interface":         {hal.Resource{Kind: KindCAN, CAN: &hal.CANPart{Interface: "can77"}}, CodeGone, "can77"},
		"a Modbus address of none": {hal.Resource{Kind: KindModbus, Modbus: &hal.ModbusPart{TCP: "meter"}}, CodeRange, "meter"},
		"no LED":                   {hal.Resource{Kind: KindLED, LED: "power"}, CodeGone, "status"},
		"no PWM":                   {hal.Resource{Kind: KindPWM, PWM: &hal.PWMPart{Chip: "pwm@1"}}, CodeGone, "pwm@1"},
		"no kind":                  {hal.Resource{Kind: "watchdog"}, CodeUnsupported, "watchdog"},
	} {
		c.r.Name = "probe"
		_, err := b.Open(t.Context(), c.r)
		if !codeIs(err, c.code) || !strings.HasPrefix(err.Error(), "probe: ") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want code %s and %q", name, err, c.code, c.says)
		}
	}
	if _, err := b.Open(t.Context(), lm75); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("got %v, want the ambiguity to be told from a missing device", err)
	}
}

func TestOutputsBeginSafeAndCarryTheirSafeAction(t *testing.T) {
	t.Parallel()
	h := board(t)
	b := newBackend(t, h.root)
	write(t, h.path("sys/class/leds/status/brightness"), "9\n")
	dim := 0.2
	l := opened[hal.Output](t, b, hal.Resource{Name: "lamp", Kind: KindLED, LED: "status", Safe: &dim})
	if got, err := l.Get(t.Context()); got != 0.2 || err != nil {
		t.Errorf("at the start: got %v, %v, want the safe 0.2", got, err)
	}
	if err := l.Set(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	fd, safe := l.(hal.Holder).FD(0.2)
	if fd < 0 || string(safe.Bytes) != "3\n" {
		t.Errorf("got descriptor %d, %q, want 3 of 15 to be written", fd, safe.Bytes)
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
	unitAt := func(mode string, unit int) hal.Resource {
		return hal.Resource{Name: "meter", Kind: KindModbus, Modbus: &hal.ModbusPart{Serial: serialAt(t, path, mode), Unit: unit}}
	}
	meter := opened[hal.Bus](t, b, unitAt("19200-8E1", 3))
	other := opened[hal.Bus](t, b, unitAt("19200-8E1", 4))
	for want, u := range map[byte]hal.Bus{3: meter, 4: other} {
		ops := []hal.Op{{Fn: hal.ReadHolding, Addr: 1, N: 1}}
		if err := u.Do(t.Context(), ops); err != nil || string(ops[0].Data) != string([]byte{0, want}) {
			t.Errorf("unit %d: got %x, %v", want, ops[0].Data, err)
		}
	}
	for name, c := range map[string]struct {
		op   hal.Op
		code Code
	}{
		"a register past the end":  {hal.Op{Fn: hal.ReadHolding, Addr: 65535, N: 2}, CodeRange},
		"a function of the future": {hal.Op{Fn: "reboot"}, CodeUnsupported},
	} {
		if err := meter.Do(t.Context(), []hal.Op{c.op}); !codeIs(err, c.code) {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
	if _, err := b.Open(t.Context(), unitAt("9600-8E1", 5)); !codeIs(err, CodeBusy) {
		t.Errorf("another mode on one port: got %v, want busy", err)
	}
	silent := opened[hal.Bus](t, b, unitAt("19200-8E1", 9))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := silent.Do(ctx, []hal.Op{{Fn: hal.ReadHolding, N: 1}}); !codeIs(err, CodeTimeout) {
		t.Errorf("no answer: got %v, want timeout", err)
	}
	far.Close()
	if err := meter.Do(t.Context(), []hal.Op{{Fn: hal.ReadHolding, N: 1}}); !codeIs(err, CodeGone) {
		t.Errorf("plugged out: got %v, want gone", err)
	}
}

func TestSerialPortOfAnotherUserIsBusyAndPluggedOutIsGone(t *testing.T) {
	t.Parallel()
	far, path := newPTY(t)
	b := newBackend(t, "")
	r := hal.Resource{Name: "scale", Kind: KindSerial, Serial: serialAt(t, path, "9600-8N1")}
	p := opened[hal.Bus](t, b, r)
	if _, err := b.Open(t.Context(), r); !codeIs(err, CodeBusy) {
		t.Errorf("second user: got %v, want busy", err)
	}
	r.Serial.RS485 = &hal.RS485Config{RTSOnSend: true}
	if _, err := b.Open(t.Context(), r); err == nil {
		t.Error("second user with RS-485 passed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Do(ctx, []hal.Op{{Write: []byte("?"), Until: '\n'}}); !codeIs(err, CodeTimeout) {
		t.Errorf("no answer: got %v, want timeout", err)
	}
	far.Close()
	if err := p.Do(t.Context(), []hal.Op{{Read: 1}}); !codeIs(err, CodeGone) {
		t.Errorf("plugged out: got %v, want gone", err)
	}
	if err := p.Do(t.Context(), []hal.Op{{Read: maxRead + 1}}); !codeIs(err, CodeRange) {
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
	for _, want := range []string{"sensor hwmon=lm75 attr=temp1_input Cel", "sensor thermal=cpu-thermal attr=temp Cel", "sensor w1=28-0316a279d4ff Cel", "sensor power=BAT0 attr=voltage_now V", "led led=status "} {
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
