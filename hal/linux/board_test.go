package linux

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// onBoard skips outside the lab, loudly, and loads the kernel's simulators.
func onBoard(t *testing.T, modules ...string) {
	t.Helper()
	if os.Getenv("LAB") == "" {
		t.Skip("SKIPPED: not in the lab: make lab")
	}
	for _, m := range modules {
		if out, err := exec.CommandContext(t.Context(), "modprobe", strings.Fields(m)...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: no module %s on this board: %s", m, out)
		}
	}
}

// put writes to the kernel as a person would with echo.
func put(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

func line(t *testing.T, path string) string {
	t.Helper()
	return strings.TrimSpace(content(t, path))
}

// simChip is a controller of gpio-sim: what the outside world does to its lines, and what it sees of them.
type simChip struct {
	label, dir, config string
}

// newSimChip makes a chip with these line names ("" is a line without a name).
func newSimChip(t *testing.T, label string, lines ...string) simChip {
	t.Helper()
	onBoard(t, "gpio_sim")
	c := simChip{label: label, config: "/sys/kernel/config/gpio-sim/" + label}
	dirs := []string{c.config, c.config + "/bank0"}
	for i, n := range lines {
		if n != "" {
			dirs = append(dirs, fmt.Sprintf("%s/bank0/line%d", c.config, i))
		}
	}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_ = os.WriteFile(c.config+"/live", []byte("0"), 0o644)
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := os.Remove(dirs[i]); err != nil {
				t.Error(err)
			}
		}
	})
	put(t, c.config+"/bank0/num_lines", fmt.Sprint(len(lines)))
	put(t, c.config+"/bank0/label", label)
	for i, n := range lines {
		if n != "" {
			put(t, fmt.Sprintf("%s/bank0/line%d/name", c.config, i), n)
		}
	}
	put(t, c.config+"/live", "1")
	c.dir = filepath.Join("/sys/devices/platform", line(t, c.config+"/dev_name"), line(t, c.config+"/bank0/chip_name"))
	return c
}

func (c simChip) file(offset int, name string) string {
	return filepath.Join(c.dir, fmt.Sprintf("sim_gpio%d", offset), name)
}

// pull is what the world does to a line: "pull-up" or "pull-down".
func (c simChip) pull(t *testing.T, offset int, up bool) {
	t.Helper()
	v := "pull-down"
	if up {
		v = "pull-up"
	}
	put(t, c.file(offset, "pull"), v)
}

// level is what a voltmeter sees.
func (c simChip) level(t *testing.T, offset int) bool {
	t.Helper()
	return line(t, c.file(offset, "value")) == "1"
}

func (c simChip) request(t *testing.T, offset int, cfg lineConfig) *lineResource {
	t.Helper()
	r, err := c.tryRequest(offset, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func (c simChip) tryRequest(offset int, cfg lineConfig) (*lineResource, error) {
	found, err := (&host{}).findChip(c.label, "")
	if err != nil {
		return nil, err
	}
	l, err := findLine(found, "", offset)
	if err != nil {
		return nil, err
	}
	return requestLine(found, l, &cfg)
}

func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput() //nolint:noctx // clean-up runs after the test's context
	return string(out), err
}
