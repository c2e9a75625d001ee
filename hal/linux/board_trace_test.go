package linux

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const tracing = "/sys/kernel/debug/tracing"

// pinTrace is what the kernel did to the lines of a chip, in order: every direction and every level that reached the
// controller, whichever process asked.
type pinTrace struct{ base int }

// trace begins to record.
func (c simChip) trace(t *testing.T) pinTrace {
	t.Helper()
	if _, err := os.Stat(tracing + "/events/gpio"); err != nil {
		t.Skipf("SKIPPED: this kernel has no trace of its lines: %v", err)
	}
	put(t, tracing+"/events/gpio/enable", "1")
	t.Cleanup(func() { _ = os.WriteFile(tracing+"/events/gpio/enable", []byte("0"), 0o644) })
	put(t, tracing+"/trace", "")
	m := regexp.MustCompile(filepath.Base(c.dir) + `: (?:\d+ )?GPIOs? (\d+)`).FindStringSubmatch(content(t, "/sys/kernel/debug/gpio"))
	if m == nil {
		t.Skipf("SKIPPED: no base number of %s: the kernel numbers lines no more", c.label)
	}
	base, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return pinTrace{base}
}

var traced = regexp.MustCompile(`gpio_(value|direction): (\d+) +(\w+) +\(?(-?\w+)\)?`)

// of lists what happened to a line since the trace began: "set 1", "out", "in". Reads are left out.
func (p pinTrace) of(t *testing.T, offset int) []string {
	t.Helper()
	var list []string
	for _, m := range traced.FindAllStringSubmatch(content(t, tracing+"/trace"), -1) {
		if m[2] != strconv.Itoa(p.base+offset) || m[3] == "get" {
			continue
		}
		if m[1] == "direction" {
			list = append(list, m[3])
			continue
		}
		list = append(list, "set "+m[4])
	}
	return list
}

func TestBoardDirectionAndLevelReachThePinTogether(t *testing.T) {
	s := newSimChip(t, "together", "", "", "")
	tr := s.trace(t)
	s.pull(t, 2, true)
	s.request(t, 0, lineConfig{out: true, value: true})
	s.request(t, 1, lineConfig{out: true, value: true, activeLow: true})
	kept := s.request(t, 2, lineConfig{out: true, keep: true})
	for off, want := range []string{"set 1,out", "set 0,out", "set 1,out"} {
		if got := strings.Join(tr.of(t, off), ","); got != want {
			t.Errorf("line %d: got %s, want %s: no other level in between", off, got, want)
		}
	}
	for range 5 {
		if _, err := kept.get(); err != nil {
			t.Fatal(err)
		}
	}
	if got := tr.of(t, 2); !slices.Equal(got, []string{"set 1", "out"}) {
		t.Errorf("reading an output: got %v, want nothing new", got)
	}
}
