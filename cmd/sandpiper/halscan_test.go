package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// someBoard is what a scan may find, names that no kernel should give among it.
func someBoard() []hal.Found {
	match := func(pairs ...string) (list []hal.Field) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, hal.Field{Key: pairs[i], Value: pairs[i+1]})
		}
		return list
	}
	return []hal.Found{
		{Kind: hal.KindLine, Match: match("chip", "pinctrl-bcm2711", "line", "GPIO17"), Detail: "in pull-up"},
		{Kind: hal.KindLine, Match: match("path", "platform-fe200000.gpio", "offset", "18"), Detail: "out"},
		{Kind: hal.KindLine, Match: match("chip", "pinctrl-bcm2711", "line", "ACT"), Detail: "out", Holder: "led0"},
		{Kind: hal.KindLine, Match: match("chip", "a \"b\" \\ \x01\xff", "line", "é\t]"), Detail: "in\n[log]\nlevel = 3\x00"},
		{Kind: hal.KindSensor, Match: match("hwmon", "lm75", "attr", "temp1_input"), Unit: "Cel", Scale: 1e-3, Detail: "hwmon0"},
		{Kind: hal.KindSensor, Match: match("hwmon", "nvme", "attr", "temp1_input"), Unit: "Cel", Scale: 1e-3, Detail: "hwmon1"},
		{Kind: hal.KindSensor, Match: match("hwmon", "nvme", "attr", "temp1_input"), Unit: "Cel", Scale: 1e-3, Detail: "hwmon2"},
		{Kind: hal.KindSensor, Match: match("w1", "28-0316a279d4ff"), Unit: "Cel", Scale: 1e-3},
		{Kind: hal.KindSensor, Match: match("thermal", "cpu-thermal"), Unit: "Cel", Scale: 1e-3},
		{Kind: hal.KindSensor, Match: match("power", "BAT0", "attr", "voltage_now"), Unit: "V", Scale: 1e-6},
		{Kind: hal.KindSensor, Match: match("iio", "ads1115", "attr", "voltage0"), Scale: 1},
		{Kind: hal.KindI2C, Match: match("adapter", "i2c@7e804000"), Detail: "bcm2835 (i2c@7e804000), combined transfers"},
		{Kind: hal.KindI2C, Match: match("adapter", "i2c@7e804000", "addr", "0x76"), Detail: "answers"},
		{Kind: hal.KindSerial, Match: match("usb.port", "1-1.3", "usb.serial", "A50285BI"), Detail: "ftdi_sio"},
		{Kind: hal.KindPWM, Match: match("chip", "fe20c000.pwm", "channel", "0")},
	}
}

func TestWhatScanPrintsIsAConfigurationThatTheAgentTakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		found []hal.Found
		want  int
	}{
		"a board":                          {someBoard(), 8},
		"one without anything":             {nil, 0},
		"one without anything to be read":  {someBoard()[11:], 0},
		"a line, as it is bought":          {someBoard()[:1], 1},
		"names that no kernel should give": {someBoard()[3:4], 1},
	} {
		text := scanTOML(c.found)
		config, err := agent.Parse("config.toml", []byte(text))
		if err != nil {
			t.Errorf("%s: got %v from\n%s", name, err, text)
			continue
		}
		list, err := config.Hal.Resources()
		if err != nil || len(list) != c.want {
			t.Errorf("%s: got %d resources, %v, want %d from\n%s", name, len(list), err, c.want, text)
		}
		for i := range list {
			if len(list[i].Allow) > 0 || list[i].Output() {
				t.Errorf("%s: %s is allowed to %v, or an output", name, list[i].Name, list[i].Allow)
			}
		}
		for _, want := range []string{"nothing was found"} {
			if strings.Contains(text, want) != (c.want == 0) {
				t.Errorf("%s: %q with %d resources", name, want, c.want)
			}
		}
	}
	text := scanTOML(someBoard())
	for _, want := range []string{
		`adapter = "i2c@7e804000", addr = 0x76  (answers)`, `usb.port = "1-1.3"`, `several have this name`, `held by led0`, `chip = "fe20c000.pwm", channel = 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got\n%s\nwant %q in it", text, want)
		}
	}
}

func FuzzScanTOML(f *testing.F) {
	f.Add("pinctrl", "GPIO17", "in", "Cel")
	f.Add("\x7f\u2028", "\x00\xff", "\x7f", "\x1b")
	f.Add("\"", "]\n[log]", "\r\n", "\\")
	f.Fuzz(func(t *testing.T, chip, line, detail, unit string) {
		if chip == "" || line == "" {
			return // no such thing is found
		}
		text := scanTOML([]hal.Found{
			{Kind: hal.KindLine, Match: []hal.Field{{Key: "chip", Value: chip}, {Key: "line", Value: line}}, Detail: detail},
			{Kind: hal.KindSensor, Match: []hal.Field{{Key: "hwmon", Value: chip}, {Key: "attr", Value: line}}, Detail: detail, Unit: unit},
			{Kind: hal.KindLED, Match: []hal.Field{{Key: "led", Value: line}}, Detail: detail, Holder: unit},
		})
		config, err := agent.Parse("config.toml", []byte(text))
		if err != nil {
			t.Fatalf("got %v from\n%s", err, text)
		}
		if got := fmt.Sprint(len(config.Hal.Line), len(config.Hal.Sensor), len(config.Hal.LED)); got != "1 1 0" {
			t.Errorf("got %s lines, sensors and LEDs, want 1 1 0 from\n%s", got, text)
		}
	})
}
