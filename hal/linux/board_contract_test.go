package linux_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/hal/haltest"
	"github.com/sandpiper-edge/sandpiper/hal/linux"
)

const pinEvents = "/sys/kernel/debug/tracing"

func shell(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// world is a chip of gpio-sim with two lines, a chip of registers and a thermometer: what the contract's rig needs.
func world(t *testing.T) haltest.Rig {
	t.Helper()
	if os.Getenv("LAB") == "" {
		t.Skip("SKIPPED: not in the lab: make lab")
	}
	for _, m := range []string{"gpio_sim", "i2c_dev", "lab_i2c chip=0x48,0x50,0x76 width=1,1,1", "lm75"} {
		if out, err := exec.CommandContext(t.Context(), "modprobe", strings.Fields(m)...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: no module %s on this board: %s", m, out)
		}
	}
	const dir = "/sys/kernel/config/gpio-sim/rig"
	shell(t, "mkdir -p "+dir+"/bank0/line0 "+dir+"/bank0/line1; echo 2 > "+dir+"/bank0/num_lines; echo rig > "+dir+"/bank0/label; "+
		"echo RELAY > "+dir+"/bank0/line0/name; echo DOOR > "+dir+"/bank0/line1/name; echo 1 > "+dir+"/live")
	adapter := filepath.Base(filepath.Dir(shell(t, "grep -l lab-i2c /sys/class/i2c-dev/*/name 2>/dev/null || grep -il lab /sys/class/i2c-dev/*/name")))
	bus := "/sys/bus/i2c/devices/" + adapter
	shell(t, "test -e "+bus+"/"+strings.TrimPrefix(adapter, "i2c-")+"-0048 || echo lm75 0x48 > "+bus+"/new_device")
	t.Cleanup(func() {
		_ = exec.Command("sh", "-c", "echo 0x48 > "+bus+"/delete_device; echo 0 > "+dir+"/live; rmdir "+dir+"/bank0/line0 "+dir+"/bank0/line1 "+dir+"/bank0 "+dir).Run() //nolint:noctx // after the test's context; what is left fails the next rig
	})
	pull := "/sys/devices/platform/" + shell(t, "cat "+dir+"/dev_name") + "/" + shell(t, "cat "+dir+"/bank0/chip_name") + "/sim_gpio1/pull"
	b, err := linux.NewBoard(linux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	zero := 0.0
	return haltest.Rig{
		Backend: wiredBoard{b, pull},
		Output:  hal.Resource{Name: "relay", Kind: hal.KindLine, Bus: "gpio rig", Safe: &zero, Line: &hal.LinePart{Chip: "rig", Line: "RELAY", Direction: hal.Out}},
		Input:   hal.Resource{Name: "door", Kind: hal.KindLine, Bus: "gpio rig", Line: &hal.LinePart{Chip: "rig", Line: "DOOR", Direction: hal.In}},
		Chip:    hal.Resource{Name: "chip", Kind: hal.KindI2C, Bus: "i2c lab", I2C: &hal.I2CPart{Path: "/dev/" + adapter, Addr: 0x50, RegBytes: 1}},
		Sensor:  hal.Resource{Name: "boiler", Kind: hal.KindSensor, Bus: "sensor lm75", Sensor: &hal.SensorPart{Source: hal.Source{Hwmon: "lm75", Attr: "temp1_input"}}},
		Trace:   pinTraceOf(t, pull),
	}
}

// wiredBoard is a board whose second line follows the first, as a wire between two pins would: gpio-sim has none.
type wiredBoard struct {
	*linux.Board
	pull string
}

func (b wiredBoard) Open(ctx context.Context, r hal.Resource) (hal.Device, error) {
	dev, err := b.Board.Open(ctx, r)
	if l, ok := dev.(hal.Line); ok && r.Line.Direction == hal.Out {
		return wiredLine{l, b.pull}, nil
	}
	return dev, err
}

type wiredLine struct {
	hal.Line
	pull string
}

func (l wiredLine) Set(ctx context.Context, on bool) error {
	if err := l.Line.Set(ctx, on); err != nil {
		return err
	}
	to := "pull-down"
	if on {
		to = "pull-up"
	}
	return os.WriteFile(l.pull, []byte(to), 0)
}

var pinEvent = regexp.MustCompile(`gpio_(value|direction): (\d+) +(\w+) +\(?(-?\w+)\)?`)

// pinTraceOf records what reaches line 0 from now on; nil where the kernel has no trace of it.
func pinTraceOf(t *testing.T, pull string) func(string) []float64 {
	t.Helper()
	chip := filepath.Base(filepath.Dir(filepath.Dir(pull)))
	state, err := os.ReadFile("/sys/kernel/debug/gpio")
	m := regexp.MustCompile(regexp.QuoteMeta(chip) + `: (?:\d+ )?GPIOs? (\d+)`).FindStringSubmatch(string(state))
	if err != nil || m == nil || os.WriteFile(pinEvents+"/events/gpio/enable", []byte("1"), 0) != nil {
		t.Log("this kernel numbers or traces its lines no more: transitions are not counted")
		return nil
	}
	shell(t, "echo > "+pinEvents+"/trace")
	return func(string) []float64 {
		text, err := os.ReadFile(pinEvents + "/trace")
		if err != nil {
			t.Fatal(err)
		}
		var list []float64
		level, out := 0.0, false
		for _, e := range pinEvent.FindAllStringSubmatch(string(text), -1) {
			switch {
			case e[2] != m[1] || e[3] == "get":
				continue
			case e[1] == "direction":
				out = e[3] == "out"
			default:
				n, err := strconv.Atoi(e[4])
				if err != nil {
					t.Fatal(fmt.Errorf("trace %q: %w", e[0], err))
				}
				level = float64(n)
			}
			if out && (len(list) == 0 || list[len(list)-1] != level) {
				list = append(list, level)
			}
		}
		return slices.Clip(list)
	}
}

func TestBoardKeepsTheContract(t *testing.T) {
	haltest.Backend(t, world)
}
