package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/bmxx80"
	"periph.io/x/devices/v3/ina219"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// registers is a chip that is a row of registers: the first byte written is where the rest goes, or where a read
// begins.
type registers struct {
	addr  uint16
	b     [256]byte
	fail  error
	moved int
}

func (r *registers) do(addr uint16, ops []hal.Op) error {
	if r.fail != nil {
		return r.fail
	}
	if addr != r.addr {
		return unix.EREMOTEIO
	}
	for _, p := range ops {
		r.moved++
		if len(p.Write)%2 == 0 { // Bosch: pairs of a register and its value
			for i := 0; i < len(p.Write); i += 2 {
				r.b[p.Write[i]] = p.Write[i+1]
			}
		} else {
			copy(r.b[p.Write[0]:], p.Write[1:])
		}
		if len(p.Data) > 0 {
			copy(p.Data, r.b[p.Write[0]:])
		}
	}
	return nil
}

// bmp280 has the calibration and the raw values of the data sheet's example (BST-BMP280-DS001, 8.1).
func bmp280() *registers {
	r := &registers{addr: 0x76}
	r.b[0xd0] = 0x58
	put := func(at int, v int) { binary.LittleEndian.PutUint16(r.b[at:], uint16(v)) }
	for i, v := range []int{27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000} {
		put(0x88+2*i, v)
	}
	raw := func(at, v int) { r.b[at], r.b[at+1], r.b[at+2] = byte(v>>12), byte(v>>4), byte(v<<4) }
	raw(0xf7, 415148)
	raw(0xfa, 519888)
	return r
}

func sensorOn(t *testing.T, word string, chip *registers) *chipSensor {
	t.Helper()
	d, option, err := findDriver(word)
	if err != nil {
		t.Fatal(err)
	}
	return &chipSensor{driver: d, option: option, bus: &chipBus{do: chip.do, addr: chip.addr}}
}

func TestDriverReadsTheDataSheetsExample(t *testing.T) {
	t.Parallel()
	chip := bmp280()
	s := sensorOn(t, "bmp280", chip)
	for quantity, want := range map[int]float64{0: 25.08, 1: 100653.3} {
		if v, err := s.value(t.Context(), quantity); math.Abs(v-want) > want/1e4 || err != nil {
			t.Errorf("%s: got %v, %v, want %v", s.driver.quantities[quantity], v, err, want)
		}
	}
	moved := chip.moved
	if _, err := s.value(t.Context(), 1); err != nil || chip.moved != moved {
		t.Errorf("a fresh conversion was not shared: %d transfers more, %v", chip.moved-moved, err)
	}
	if _, err := sensorOn(t, "bme280", chip).value(t.Context(), 2); !errors.Is(err, unix.ENODATA) {
		t.Errorf("got %v for a quantity that the chip lacks", err)
	}
}

func TestDriverErrorsKeepTheKernelsCauseAndTheChipComesBack(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"bmp280", "ina219", "ads1115"} {
		chip := bmp280()
		s := sensorOn(t, word, chip)
		if word == "ina219" {
			chip.addr, s.bus.addr = 0x40, 0x40
		}
		chip.fail = unix.EREMOTEIO
		if _, err := s.value(t.Context(), 0); !errors.Is(err, unix.EREMOTEIO) {
			t.Errorf("%s: got %v, want the NAK", word, err)
		}
		chip.fail = nil
		if _, err := s.value(t.Context(), 0); err != nil {
			t.Errorf("%s: after the chip came back: got %v", word, err)
		}
	}
}

func TestDriverThatWaitsForItsChipEndsWithTheDeadline(t *testing.T) {
	t.Parallel()
	chip := bmp280()
	chip.b[0xf3] = 0x08 // measuring, for ever
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := sensorOn(t, "bmp280", chip).value(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

// periphBus is the chip as an unmodified driver of periph.io sees it.
type periphBus struct{ chip *registers }

func (b periphBus) String() string                  { return "chip" }
func (b periphBus) SetSpeed(physic.Frequency) error { return errors.ErrUnsupported }
func (b periphBus) Tx(addr uint16, w, r []byte) error {
	return b.chip.do(addr, []hal.Op{{Write: w, Data: r}})
}

func TestOurDriversAgreeWithPeriphsOnTheSameRegisters(t *testing.T) {
	t.Parallel()
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > math.Abs(want)*1e-3+1e-3 {
			t.Errorf("%s: got %v, periph's driver says %v", what, got, want)
		}
	}
	value := func(s *chipSensor, quantity string) float64 {
		t.Helper()
		v, err := s.value(t.Context(), slices.Index(s.driver.quantities, quantity))
		if err != nil {
			t.Errorf("%s: %v", quantity, err)
		}
		return v
	}
	air := bmp280()
	air.b[bmxID] = bme280ID
	air.b[0xa1] = 75
	copy(air.b[bmxCalibHum:], []byte{0x6a, 0x01, 0x00, 0x12, 0x2e, 0x03, 0x1e})
	copy(air.b[0xfd:], []byte{0x6b, 0x40})
	theirs, err := bmxx80.NewI2C(periphBus{air}, air.addr, &bmxx80.Opts{Temperature: bmxx80.O4x, Pressure: bmxx80.O4x, Humidity: bmxx80.O4x})
	if err != nil {
		t.Fatal(err)
	}
	var e physic.Env
	if err := theirs.Sense(&e); err != nil {
		t.Fatal(err)
	}
	s := sensorOn(t, "bme280", air)
	near("temperature", value(s, "temperature"), e.Temperature.Celsius())
	near("pressure", value(s, "pressure"), float64(e.Pressure)/float64(physic.Pascal))
	near("humidity", value(s, "humidity"), float64(e.Humidity)/float64(physic.PercentRH))

	shunt := &registers{addr: 0x40}
	meter, err := ina219.New(periphBus{shunt}, &ina219.Opts{Address: 0x40, SenseResistor: 100 * physic.MilliOhm, MaxCurrent: 3200 * physic.MilliAmpere})
	if err != nil {
		t.Fatal(err)
	}
	ours, err := startINA219(&chipBus{do: shunt.do, addr: shunt.addr}, "")
	if err != nil {
		t.Fatal(err)
	}
	copy(shunt.b[1:], []byte{0x0f, 0xa0}) // registers of two bytes overlap in this model: only this one is compared
	p, err := meter.Sense()
	if err != nil {
		t.Fatal(err)
	}
	var m readings
	if err := ours(3, &m); err != nil {
		t.Fatal(err)
	}
	near("shunt", m[3], float64(p.Shunt)/float64(physic.Volt))
}

func TestDriversThatAreNotThereAndOptionsThatAreNone(t *testing.T) {
	t.Parallel()
	b := &chipBus{do: func(uint16, []hal.Op) error { return nil }, addr: 0x76}
	if _, _, err := findDriver("lm75"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "bme280") {
		t.Errorf("got %v, want the drivers that there are", err)
	}
	for _, word := range []string{"ina219:-1", "ina219:x", "ads1115:7", "ads1115:NaN"} {
		d, option, err := findDriver(word)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.start(b, option); err == nil {
			t.Errorf("%s was taken", word)
		}
	}
}
