package linux

import (
	"errors"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestScanTypes(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]scanType{
		"le:s12/16>>4":   {signed: true, bits: 12, storage: 16, shift: 4, repeat: 1},
		"be:u24/32>>8":   {big: true, bits: 24, storage: 32, shift: 8, repeat: 1},
		"le:s64/64>>0":   {signed: true, bits: 64, storage: 64, repeat: 1},
		"le:s16/32X4>>0": {signed: true, bits: 16, storage: 32, repeat: 4},
		"le:u8/8":        {bits: 8, storage: 8, repeat: 1},
	} {
		if got, err := parseScanType(s); got != want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "le", "le:", "xx:s8/8", "le:f8/8", "le:s8", "le:s9/8", "le:s12/16>>5", "le:s8/24", "le:s0/8", "le:s8/8X0", "le:s8/8X17", "le:s8888/8", "le:s-1/8"} {
		if got, err := parseScanType(s); err == nil {
			t.Errorf("%q passed as %+v", s, got)
		}
	}
}

func TestSamplesAreDecodedWithAlignmentShiftAndSign(t *testing.T) {
	t.Parallel()
	list := []element{{name: "voltage0"}, {name: "accel_x"}, {name: "timestamp"}}
	for i, s := range []string{"le:u12/16>>4", "be:s12/16>>4", "le:s64/64>>0"} {
		var err error
		if list[i].typ, err = parseScanType(s); err != nil {
			t.Fatal(err)
		}
	}
	sample, err := layout(list)
	if err != nil || sample != 16 || list[2].at != 8 {
		t.Fatalf("got sample %d, time at %d, %v, want 16 and 8", sample, list[2].at, err)
	}
	b := []byte{0xf0, 0xff, 0xff, 0xf0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x7f, 0xf0, 0xee}
	b = append(b, b[4:8]...) // half a sample more
	var got [][]int64
	rest := decodeSamples(b, list, sample, func(raw []int64) { got = append(got, slices.Clone(raw)) })
	if len(got) != 1 || !slices.Equal(got[0], []int64{4095, -1, 1}) || len(rest) != len(b)-16 {
		t.Errorf("got %v and %d left, want one sample 4095 -1 1 and %d left", got, len(rest), len(b)-16)
	}
}

func adc(t *testing.T) host {
	return tree(t, map[string]string{
		"sys/devices/adc/iio:device0/name":               "ads1015\n",
		"sys/devices/adc/iio:device0/label":              "tank\n",
		"sys/devices/adc/iio:device0/in_voltage0_raw":    "1000\n",
		"sys/devices/adc/iio:device0/in_voltage0_offset": "-10\n",
		"sys/devices/adc/iio:device0/in_voltage_scale":   "3.000000\n",
		"sys/devices/adc/iio:device0/in_temp_input":      "21250\n",
		"sys/devices/adc/iio:device0/in_accel_x_raw":     "100\n",
		"sys/devices/adc/iio:device0/in_accel_scale":     "0.009806\n",
	}, map[string]string{
		"sys/bus/iio/devices/iio:device0": "sys/devices/adc/iio:device0",
		"sys/devices/adc/subsystem":       "sys/bus/i2c",
	})
}

func TestOneConversionIsScaledToTheUnit(t *testing.T) {
	t.Parallel()
	h := adc(t)
	d, err := h.findClass(&iioClass, "tank", "")
	if err != nil {
		t.Fatal(err)
	}
	for channel, want := range map[string]struct {
		v    float64
		unit string
	}{
		"voltage0": {2970, "V"}, "in_voltage0_raw": {2970, "V"}, "temp": {21250, "Cel"}, "accel_x": {0.9806, "m/s2"},
	} {
		c, err := openIIO(d, channel)
		if err != nil {
			t.Errorf("%s: %v", channel, err)
			continue
		}
		_, unit := scaleOf(iioScales, c.channel)
		if v, err := c.Read(t.Context()); math.Abs(v.Num-want.v) > 1e-9 || unit != want.unit || err != nil {
			t.Errorf("%s: got %v %s, %v, want %v %s", channel, v.Num, unit, err, want.v, want.unit)
		}
		c.Close()
	}
	if got := iioChannels(d); !slices.Equal(got, []string{"accel_x", "temp", "voltage0"}) {
		t.Errorf("channels: got %v", got)
	}
	if _, err := openIIO(d, "voltage9"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "voltage0") {
		t.Errorf("got %v, want the channels that there are", err)
	}
	if _, err := openIIO(d, "../../../x"); err == nil {
		t.Error("a path passed for a channel")
	}
}

func FuzzScanType(f *testing.F) {
	for _, s := range []string{"le:s63/64", "le:u63/64", "le:s12/16>>4", "be:u24/32X2>>8", "le:s64/64>>0", "le:s8/8>>", ":", "le:s3/8X99>>9"} {
		f.Add(s, []byte("0123456789abcdef0123"))
	}
	f.Fuzz(func(t *testing.T, s string, data []byte) {
		typ, err := parseScanType(s)
		if err != nil {
			return
		}
		if again, err := parseScanType(typ.String()); again != typ || err != nil {
			t.Fatalf("%q printed as %q reads as %+v, %v", s, typ, again, err)
		}
		list := []element{{typ: scanType{bits: 1, storage: 8, repeat: 1}}, {typ: typ}}
		sample, err := layout(list)
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		rest := decodeSamples(data, list, sample, func(raw []int64) {
			seen++
			least, beyond := int64(0), uint64(1)<<typ.bits // 0 = 64 bits have no such number
			if typ.signed {
				least, beyond = -1<<(typ.bits-1), 1<<(typ.bits-1)
			}
			if v := raw[1]; typ.bits < 64 && (v < least || v >= 0 && uint64(v) >= beyond) {
				t.Fatalf("%q: %d is out of its bits", s, v)
			}
		})
		if seen*sample+len(rest) != len(data) || len(rest) >= sample {
			t.Fatalf("%d samples of %d and %d left of %d bytes", seen, sample, len(rest), len(data))
		}
	})
}
