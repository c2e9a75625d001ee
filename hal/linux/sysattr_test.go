package linux

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func board(t *testing.T) host {
	return tree(t, map[string]string{
		"sys/devices/platform/soc/i2c-1/1-0048/hwmon/hwmon3/name":        "lm75\n",
		"sys/devices/platform/soc/i2c-1/1-0048/hwmon/hwmon3/temp1_input": "21500\n",
		"sys/devices/platform/soc/i2c-1/1-0049/hwmon/hwmon4/name":        "lm75\n",
		"sys/devices/platform/soc/i2c-1/1-0049/hwmon/hwmon4/temp1_input": "-4000\n",
		"sys/class/thermal/thermal_zone0/type":                           "cpu-thermal\n",
		"sys/class/thermal/thermal_zone0/temp":                           "48312\n",
		"sys/class/thermal/cooling_device0/type":                         "fan\n",
		"sys/class/power_supply/BAT0/voltage_now":                        "12340000\n",
		"sys/bus/w1/devices/w1_bus_master1/28-0316a279d4ff/x":            "",
		"sys/bus/w1/devices/28-0316a279d4ff/temperature":                 "23187\n",
		"sys/bus/w1/devices/28-0316a279d4aa/temperature":                 "85000\n",
		"sys/bus/w1/devices/28-0316a279d4bb/temperature":                 "85000\n",
		"sys/bus/w1/devices/28-0316a279d4bb/features":                    "1\n",
		"sys/bus/w1/devices/28-0316a279d4cc/temperature":                 "85000\n",
		"sys/bus/w1/devices/28-0316a279d4cc/features":                    "2\n",
		"sys/class/leds/status/brightness":                               "0\n",
		"sys/class/leds/status/max_brightness":                           "15\n",
		"sys/class/leds/status/trigger":                                  "none [heartbeat]\n",
	}, map[string]string{
		"sys/class/hwmon/hwmon3":                                    "sys/devices/platform/soc/i2c-1/1-0048/hwmon/hwmon3",
		"sys/class/hwmon/hwmon4":                                    "sys/devices/platform/soc/i2c-1/1-0049/hwmon/hwmon4",
		"sys/devices/platform/soc/i2c-1/1-0048/hwmon/hwmon3/device": "sys/devices/platform/soc/i2c-1/1-0048",
		"sys/devices/platform/soc/i2c-1/1-0049/hwmon/hwmon4/device": "sys/devices/platform/soc/i2c-1/1-0049",
		"sys/devices/platform/soc/i2c-1/1-0048/subsystem":           "sys/bus/i2c",
		"sys/devices/platform/soc/i2c-1/1-0049/subsystem":           "sys/bus/i2c",
	})
}

func TestTwinSensorsAreToldApartByTheirPath(t *testing.T) {
	t.Parallel()
	h := board(t)
	if _, err := h.findClass(&hwmonClass, "lm75", ""); !errors.Is(err, ErrAmbiguous) || !strings.Contains(err.Error(), "lm75 (i2c-1-0049)") {
		t.Errorf("got %v, want an ambiguity that names both", err)
	}
	d, err := h.findClass(&hwmonClass, "lm75", "i2c-1-0048")
	if err != nil {
		t.Fatal(err)
	}
	a, err := openAttribute(filepath.Join(d.dir, "temp1_input"), os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if v, err := a.number(); v != 21500 || err != nil {
		t.Errorf("got %v, %v, want 21500", v, err)
	}
	write(t, a.file.Name(), "19000\n")
	if v, err := a.number(); v != 19000 || err != nil {
		t.Errorf("read again: got %v, %v, want 19000", v, err)
	}
	if _, err := h.findClass(&hwmonClass, "bme280", ""); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there are: lm75") {
		t.Errorf("got %v, want the names that there are", err)
	}
}

func TestCoolingDevicesAreNoThermalZones(t *testing.T) {
	t.Parallel()
	h := board(t)
	if list := h.devices(&thermalClass); len(list) != 1 || list[0].name != "cpu-thermal" {
		t.Errorf("got %v, want the one zone", list)
	}
	if d, err := h.findClass(&powerClass, "BAT0", ""); err != nil || d.name != "BAT0" {
		t.Errorf("got %v, %v, want the battery by the name of its folder", d, err)
	}
}

func TestPowerOnValueOfAThermometerIsRefusedUnlessTheChipCanTell(t *testing.T) {
	t.Parallel()
	h := board(t)
	for name, c := range map[string]struct {
		id   string
		want float64
		err  error
	}{
		"a temperature":                 {id: "28-0316a279d4ff", want: 23187},
		"85 °C from a chip that cannot": {id: "28-0316a279d4aa", err: errPowerOn},
		"85 °C from a chip that can":    {id: "28-0316a279d4bb", want: 85000},
		"85 °C from one that is polled": {id: "28-0316a279d4cc", err: errPowerOn},
		"a chip that is not there":      {id: "28-000000000000", err: fs.ErrNotExist},
	} {
		th, err := h.openW1(c.id)
		if err == nil {
			var v hal.Value
			if v, err = th.Read(t.Context()); err == nil && math.Abs(v.Num-c.want) > 1e-9 {
				t.Errorf("%s: got %v, want %v", name, v.Num, c.want)
			}
			th.Close()
		}
		if !errors.Is(err, c.err) {
			t.Errorf("%s: got %v, want %v", name, err, c.err)
		}
	}
	if _, err := h.openW1("../../etc"); err == nil {
		t.Error("a path passed for an id")
	}
	if list := h.w1Devices(); len(list) != 4 || list[3].parent != "w1_bus_master1" {
		t.Errorf("got %+v, want four chips, the last with its bus", list)
	}
}

func TestAttributesStayInTheirFolder(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "..", ".", "a/b", "../temp", "a\x00b", strings.Repeat("x", 65)} {
		if _, err := attrOf("/sys", name); err == nil {
			t.Errorf("%q passed for an attribute", name)
		}
	}
}

func TestLEDIsTakenFromItsTriggerAndScaled(t *testing.T) {
	t.Parallel()
	h := board(t)
	l, err := h.openLED("status")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := content(t, h.path("sys/class/leds/status/trigger")); !strings.HasPrefix(got, "none") {
		t.Errorf("trigger: got %q, want none", got)
	}
	if err := l.Set(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := content(t, h.path("sys/class/leds/status/brightness")); got != "15\n" {
		t.Errorf("brightness: got %q, want 15", got)
	}
	if v, err := l.Get(t.Context()); v != 1 || err != nil {
		t.Errorf("got %v, %v, want 1", v, err)
	}
	for _, v := range []float64{-0.1, 1.1, math.NaN(), math.Inf(1)} {
		if l.Set(t.Context(), v) == nil {
			t.Errorf("brightness %v was taken", v)
		}
	}
	if _, err := h.openLED("power"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "status") {
		t.Errorf("got %v, want the LEDs that there are", err)
	}
}

func TestPWMKeepsARunningChannelAndSwitchesOffToChangeAnother(t *testing.T) {
	t.Parallel()
	files := map[string]string{"sys/class/pwm/pwmchip0/npwm": "2\n", "sys/class/pwm/pwmchip0/export": ""}
	for name, text := range map[string]string{"period": "20000000", "duty_cycle": "1500000", "polarity": "normal", "enable": "1"} {
		files["sys/class/pwm/pwmchip0/pwm1/"+name] = text
	}
	h := tree(t, files, map[string]string{"sys/class/pwm/pwmchip0/device": "sys/devices/platform/3f20c000.pwm", "sys/devices/platform/3f20c000.pwm/subsystem": "sys/bus/platform"})
	c, err := h.findClass(&pwmClass, "", "platform-3f20c000.pwm")
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return content(t, filepath.Join(c.dir, "pwm1", name)) }
	p, err := openPWM(c, 1, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if d, e := at("duty_cycle"), at("enable"); d != "1500000" || e != "1" {
		t.Errorf("same period: got duty %s, enable %s, want a channel that runs on", d, e)
	}
	if v, err := p.Get(t.Context()); math.Abs(v-0.075) > 1e-9 || err != nil {
		t.Errorf("got duty %v, %v, want 0.075", v, err)
	}
	p.Close()
	write(t, filepath.Join(c.dir, "pwm1", "polarity"), "inversed")
	if p, err = openPWM(c, 1, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := []string{at("enable")[:1], at("duty_cycle")[:1], at("period"), at("polarity")}; !slices.Equal(got, []string{"0", "0", "1000000", "normal"}) {
		t.Errorf("other period: got %q", got)
	}
	if err := p.Set(t.Context(), 0.5); err != nil {
		t.Fatal(err)
	}
	if got := at("duty_cycle"); !strings.HasPrefix(got, "500000") {
		t.Errorf("half: got %q, want 500000", got)
	}
	if _, err := openPWM(c, 2, time.Millisecond); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("channel 2 of 2: got %v", err)
	}
	if p.Set(t.Context(), 1.01) == nil || p.Set(t.Context(), math.NaN()) == nil {
		t.Error("a duty above one was taken")
	}
}
