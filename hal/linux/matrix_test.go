package linux

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The kill matrix: {module, agent, warden} x {killed, stopped} x {relay high, pulse running, PWM on}, with real processes, and a pin whose
// whole history is known. The module is a process too. The pin is a line of gpio-sim on a board (board_matrix_test.go), or a file in a made /sys, which is what an LED
// and a PWM channel are to a process; so that every cell but the line's release is shown on any host.

// row is one row of the matrix: what happens to whom, who makes the output safe then, and what the pin must show.
type row struct {
	name, by, deadman string
	test              func(h *household, begin string)
}

// rows are the rows of the table; begin drives the output as the column says, for an hour where that is a pulse.
var rows = [...]row{
	{"module killed", "the agent", "", func(h *household, begin string) {
		h.signal(h.module(begin), unix.SIGKILL)
		h.wants(h.pin.on, h.pin.off)
	}},
	{"module stopped", "the agent, as the lease is not renewed", "4s", func(h *household, begin string) {
		h.signal(h.module(begin), unix.SIGSTOP)
		h.wants(h.pin.on, h.pin.off)
		h.lost()
	}},
	{"agent killed", "nobody: the next agent adopts it until its module ends", "", func(h *household, begin string) {
		h.begin(begin)
		h.signal(h.agent, unix.SIGKILL)
		h.ready()
		h.wants(h.pin.on)
		h.do("gone") // the adopted lease is the module's
		h.wants(h.pin.on, h.pin.off)
	}},
	{"agent stopped", "the warden, after its hold", "", func(h *household, begin string) {
		h.begin(begin)
		h.signal(h.agent, unix.SIGSTOP)
		h.wants(h.pin.on, h.pin.off)
		h.signal(h.agent, unix.SIGCONT)
		h.lost()
		if got, want := slices.Compact(h.pin.of()), append(slices.Clone(h.pin.start), h.pin.on, h.pin.off); !slices.Equal(got, want) {
			h.t.Errorf("after the agent went on: got %v, want %v: what the module writes on does not reach the pin", got, want)
		}
	}},
	{"warden killed", "the controller's choice, and the next agent", "", func(h *household, begin string) {
		h.begin(begin)
		h.signal(h.warden.Process.Pid, unix.SIGKILL)
		_ = h.warden.Wait()
		for h.hear.Scan() { // the agent ends with it
		}
		h.agent = 0
		if !h.pin.keeps {
			if !h.pin.low() {
				h.t.Error("gpio-sim lets its pull decide when the last descriptor is closed, and the pin is high")
			}
			return
		}
		h.wants(h.pin.on) // the kernel keeps it; whoever starts the warden again has the agent take it, which is safe
		next := newHousehold(h.t, h.pin)
		next.pin.start = append(slices.Clone(h.pin.start), h.pin.on)
		next.wants(h.pin.off)
	}},
	{"warden stopped", "the agent, when the module ends", "", func(h *household, begin string) {
		pid := h.module(begin)
		h.signal(h.warden.Process.Pid, unix.SIGSTOP)
		h.signal(pid, unix.SIGKILL)
		h.wants(h.pin.on, h.pin.off)
		h.signal(h.warden.Process.Pid, unix.SIGCONT)
	}},
}

// columns are what the output does when the signal comes, and the words that have a module do it.
var columns = [...]struct{ name, begin string }{{relayHigh, "write relay 1 0s"}, {pulseRunning, "write relay 1 1h"}, {pwmOn, "write heater 0.5 0s"}}

const relayHigh, pulseRunning, pwmOn = "relay high", "pulse running", "PWM on"

// matrix runs every cell, each with a household and a pin of its own, and prints what each pin did.
func matrix(t *testing.T, pin func(t *testing.T, column string) matrixPin, side func(*testing.T)) {
	t.Helper()
	var mu sync.Mutex
	seen := map[[2]string]string{}
	t.Cleanup(func() { // when the last cell has ended
		text := fmt.Sprintf("what the pin did, in %d of %d cells:", len(seen), len(rows)*len(columns))
		put := func(words ...string) {
			text += fmt.Sprintf("\n%-14s | %-14s | %-14s | %-14s | %s", words[0], words[1], words[2], words[3], words[4])
		}
		put("", relayHigh, pulseRunning, pwmOn, "who makes it safe")
		for _, r := range rows {
			put(r.name, seen[[2]string{r.name, relayHigh}], seen[[2]string{r.name, pulseRunning}], seen[[2]string{r.name, pwmOn}], r.by)
		}
		t.Log(text)
	})
	for _, r := range rows {
		for _, c := range columns {
			t.Run(r.name+", "+c.name, func(t *testing.T) {
				side(t)
				var env []string
				if r.deadman != "" {
					env = append(env, "SANDPIPER_TEST_DEADMAN="+r.deadman)
				}
				h := newHousehold(t, pin(t, c.name), env...)
				r.test(h, c.begin)
				did := strings.Join(h.pin.of()[len(h.pin.start):], ", ")
				if t.Failed() {
					did = "WRONG: " + did
				}
				mu.Lock()
				defer mu.Unlock()
				seen[[2]string{r.name, c.name}] = did
			})
		}
	}
}

// filePin is an LED or a PWM channel in a made /sys: every write to its file is seen, in order.
func filePin(t *testing.T, column string) matrixPin {
	t.Helper()
	h := tree(t, map[string]string{
		"sys/class/leds/relay/brightness": "0\n", "sys/class/leds/relay/max_brightness": "1\n",
		"sys/class/pwm/pwmchip0/npwm": "1\n", "sys/class/pwm/pwmchip0/export": "", "sys/class/pwm/pwmchip0/pwm0/period": "1000000\n",
		"sys/class/pwm/pwmchip0/pwm0/polarity": "normal\n", "sys/class/pwm/pwmchip0/pwm0/duty_cycle": "0\n", "sys/class/pwm/pwmchip0/pwm0/enable": "0\n",
	}, map[string]string{"sys/class/pwm/pwmchip0/device": "sys/devices/platform/3f20c000.pwm", "sys/devices/platform/3f20c000.pwm/subsystem": "sys/bus/platform"})
	p := matrixPin{name: "relay", folder: h.root, start: []string{"off"}, on: "on", off: "off", keeps: true}
	path := h.path("sys/class/leds/relay/brightness")
	if column == pwmOn {
		p.name, path = "heater", h.path("sys/class/pwm/pwmchip0/pwm0/duty_cycle")
	}
	p.of = writesTo(t, path)
	return p
}

// writesTo records each write to a file that holds a number: "off" for zero, else "on".
func writesTo(t *testing.T, path string) func() []string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	var mu sync.Mutex
	var list []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		var buf [4096]byte
		for {
			n, err := watch.Read(buf[:])
			if err != nil {
				return
			}
			raw, _ := os.ReadFile(path)
			text, _, _ := strings.Cut(string(raw), "\n")
			word := "on"
			if text == "0" {
				word = "off"
			}
			mu.Lock()
			for range n / unix.SizeofInotifyEvent { // a file that is watched itself has no name in its events
				list = append(list, word)
			}
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { watch.Close(); <-done })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}

func TestKillMatrixOfModuleAgentAndWarden(t *testing.T) {
	t.Parallel()
	matrix(t, filePin, (*testing.T).Parallel)
}

// A pulse that is shorter than its agent's absence is ended by the next agent.
func (h *household) pulse() {
	h.t.Helper()
	h.begin("write relay 1 3s")
	h.signal(h.agent, unix.SIGKILL)
	h.ready()
	h.wants(h.pin.on, h.pin.off)
}

func TestPulseOfAKilledAgentIsEndedByTheNext(t *testing.T) {
	t.Parallel()
	newHousehold(t, filePin(t, pulseRunning)).pulse()
}

func TestKilledAgentsNeverWriteToAnOutputThatIsOn(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, filePin(t, relayHigh))
	h.begin(columns[0].begin)
	h.kill(killsOr(20))
}

// killsOr is how many agents are killed: 200 where it is to be shown.
func killsOr(few int) int {
	if n, err := strconv.Atoi(os.Getenv("LAB_TEST_KILLS")); err == nil {
		return n
	}
	return few
}

// kill kills agents one after the other; each adopts what the one before held, and the pin never moves.
func (h *household) kill(times int) {
	h.t.Helper()
	for range times {
		h.signal(h.agent, unix.SIGKILL)
		h.ready()
	}
	want := append(slices.Clone(h.pin.start), h.pin.on)
	if got := h.pin.of(); !slices.Equal(got, want) {
		h.t.Errorf("pin over %d kills: got %v, want %v", times, got, want)
	}
	h.t.Logf("%d agents killed, pin %v", times, h.pin.of())
}
