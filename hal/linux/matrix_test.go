package linux

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// The kill matrix: {module, agent, warden} x {killed, stopped} x {relay high, pulse running, PWM on}, with real processes, and a pin whose
// whole history is known. The pin is a line of gpio-sim on a board (board_matrix_test.go), or a file in a made /sys, which is what an LED
// and a PWM channel are to a process; so that every cell but the line's release is shown on any host.

// matrixHold is short, and far longer than an agent needs to come back.
const matrixHold = 4 * time.Second

// matrixRootVar says where the agent's /sys lies; without it the pin is the board's.
const matrixRootVar = "SANDPIPER_TEST_ROOT"

// matrixPWMVar names a controller of the board whose channel 0 is the pin.
const matrixPWMVar = "SANDPIPER_TEST_PWM"

// beWarden keeps outputs and starts one agent after the other, as the warden does. Both have the test's pipes.
func beWarden(string) error {
	v := NewVault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	for {
		end, err := v.Pass()
		if err != nil {
			return err
		}
		cmd := exec.Command(os.Args[0]) //nolint:noctx // it ends with its parent
		cmd.Env = append(os.Environ(), holderVar+"=agent", KeeperVar+"=3")
		cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{end}
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if err := cmd.Start(); err != nil {
			return err
		}
		end.Close()
		_ = cmd.Wait() // killed, mostly
	}
}

// madePWM is the controller of the made /sys.
const madePWM = "platform-3f20c000.pwm"

// matrixResources are the outputs that an agent of the matrix has.
func matrixResources() []hal.Resource {
	low := 0.0
	all := []string{"*"}
	heater := hal.Resource{Name: "heater", Kind: hal.KindPWM, Bus: "pwm", Safe: &low, Allow: all, PWM: &hal.PWMPart{Chip: os.Getenv(matrixPWMVar), Channel: 0, Period: time.Millisecond}}
	switch {
	case heater.PWM.Chip != "":
		return []hal.Resource{heater}
	case os.Getenv(matrixRootVar) == "":
		return []hal.Resource{{Name: "relay", Kind: hal.KindLine, Bus: "gpio", Safe: &low, Allow: all, Line: &hal.LinePart{Chip: "matrix", Line: "RELAY", Direction: hal.Out}}}
	}
	heater.PWM.Chip = madePWM
	return []hal.Resource{{Name: "relay", Kind: hal.KindLED, Bus: "led", Safe: &low, Allow: all, LED: &hal.LEDPart{Name: "relay"}}, heater}
}

// beAgent serves the outputs and does what comes in, a line each: "write NAME VALUE PULSE", "again NAME", "gone".
func beAgent(string) error {
	k, err := NewKeeper(3, matrixHold)
	if err != nil {
		return err
	}
	b, err := NewBoard(Config{Root: os.Getenv(matrixRootVar)})
	if err != nil {
		return err
	}
	list := matrixResources()
	s, err := hal.New(hal.ServerConfig{Resources: list, Backend: b, Keeper: k, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	ctx := context.Background()
	var grants []hal.Grant
	for _, r := range list {
		grants = append(grants, hal.Grant{Name: r.Name, Read: true, Write: true, Deadman: deadmanOf()})
	}
	if err := s.Grant("m", grants); err != nil {
		return err
	}
	go s.Run(ctx)
	go k.Run(ctx, s.Heard)
	if _, err := s.Read(ctx, "m", list[0].Name, hal.ClassRead, 0); err != nil {
		return err
	}
	fmt.Println("ready", os.Getpid())
	fence := uint64(0)
	var buf [256]byte
	for {
		n, err := os.Stdin.Read(buf[:]) // one line a write: nothing of the next agent's is taken
		if err != nil {
			return err
		}
		words := strings.Fields(string(buf[:n]))
		switch words[0] {
		case "write":
			value, _ := strconv.ParseFloat(words[2], 64)
			pulse, _ := time.ParseDuration(words[3])
			var got uint64
			if got, err = s.Write(ctx, "m", words[1], value, pulse, 0); err == nil {
				fence = got
			}
		case "again": // under the fence of before
			_, err = s.Write(ctx, "m", words[1], 1, 0, fence)
		case "gone":
			s.Gone("m", "module ended")
		}
		fmt.Println("done", err)
	}
}

func deadmanOf() time.Duration {
	d, _ := time.ParseDuration(os.Getenv("SANDPIPER_TEST_DEADMAN")) // none without
	return d
}

// matrixPin is an output whose history is known from before the first agent on.
type matrixPin struct {
	name   string
	of     func() []string // what happened so far
	start  []string        // what taking it does
	on     string
	off    string
	keeps  bool        // the kernel keeps its level when the last descriptor is closed
	low    func() bool // for one whose level is its controller's choice then
	folder string      // "" = the board
}

// household is a warden with its agent, seen from the test.
type household struct {
	t      *testing.T
	warden *exec.Cmd
	say    io.Writer
	hear   *bufio.Scanner
	agent  int // pid
	pin    matrixPin
}

func newHousehold(t *testing.T, pin matrixPin, env ...string) *household {
	t.Helper()
	h := &household{t: t, pin: pin}
	h.warden = exec.CommandContext(t.Context(), os.Args[0])
	h.warden.Env = append(append(os.Environ(), holderVar+"=warden", matrixRootVar+"="+pin.folder), env...)
	h.warden.Stderr = t.Output()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.say, h.warden.Stdin = out, in
	hear, tell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.hear, h.warden.Stdout = bufio.NewScanner(hear), tell
	if err := h.warden.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	tell.Close()
	t.Cleanup(func() {
		_ = h.warden.Process.Kill()
		_ = h.warden.Wait()
		if h.agent > 0 {
			_ = unix.Kill(h.agent, unix.SIGKILL)
		}
		out.Close()
		for h.hear.Scan() { // until the last of them has ended
		}
		hear.Close()
	})
	h.ready()
	return h
}

func (h *household) line(want string) string {
	h.t.Helper()
	if !h.hear.Scan() {
		h.t.Fatalf("nothing more is said, want %q", want)
	}
	rest, ok := strings.CutPrefix(h.hear.Text(), want+" ")
	if !ok {
		h.t.Fatalf("got %q, want %q", h.hear.Text(), want)
	}
	return rest
}

func (h *household) ready() {
	h.t.Helper()
	pid, err := strconv.Atoi(h.line("ready"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.agent = pid
}

func (h *household) do(words string) string {
	h.t.Helper()
	if _, err := io.WriteString(h.say, words+"\n"); err != nil {
		h.t.Fatal(err)
	}
	return h.line("done")
}

func (h *household) signal(pid int, sig unix.Signal) {
	h.t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		h.t.Fatal(err)
	}
}

// wants waits until the pin's history is this: taking it, and then these.
func (h *household) wants(then ...string) {
	h.t.Helper()
	want := append(slices.Clone(h.pin.start), then...)
	var got []string
	for range 300 {
		if got = h.pin.of(); slices.Equal(got, want) {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	h.t.Errorf("pin: got %v, want %v", got, want)
}

// begin drives the output, seen step by step.
func (h *household) begin(words string) {
	h.t.Helper()
	h.wants()
	h.do(words)
	h.wants(h.pin.on)
}

// lost waits until the module is told that its lease ended.
func (h *household) lost() {
	h.t.Helper()
	for range 200 {
		if strings.Contains(h.do("again "+h.pin.name), "lease_lost") {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	h.t.Error("the module was never told that its lease ended")
}

// cell is one cell of the matrix: what a module does with the output first is its column.
type cell struct {
	deadman string
	test    func(h *household, begin string)
}

// cells are the rows of the table; begin drives the output as the column says, for an hour where that is a pulse.
var cells = map[string]cell{
	"module killed": {"", func(h *household, begin string) {
		h.begin(begin)
		h.do("gone") // the runtime's word; that it comes is the supervisor's test
		h.wants(h.pin.on, h.pin.off)
	}},
	"module stopped": {"1s", func(h *household, begin string) {
		h.begin(begin)
		h.wants(h.pin.on, h.pin.off)
		h.lost()
	}},
	"agent killed": {"", func(h *household, begin string) {
		h.begin(begin)
		h.signal(h.agent, unix.SIGKILL)
		h.ready()
		h.wants(h.pin.on)
		h.do("gone") // the adopted lease is the module's
		h.wants(h.pin.on, h.pin.off)
	}},
	"agent stopped": {"", func(h *household, begin string) {
		h.begin(begin)
		h.signal(h.agent, unix.SIGSTOP)
		h.wants(h.pin.on, h.pin.off) // by the warden, after its hold
		h.signal(h.agent, unix.SIGCONT)
		h.lost()
	}},
	"warden stopped": {"", func(h *household, begin string) {
		h.begin(begin)
		h.signal(h.warden.Process.Pid, unix.SIGSTOP)
		h.do("gone")
		h.wants(h.pin.on, h.pin.off)
		h.signal(h.warden.Process.Pid, unix.SIGCONT)
	}},
	"warden killed": {"", func(h *household, begin string) {
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
}

// matrix runs every cell of some columns, each with a household and a pin of its own.
func matrix(t *testing.T, columns map[string]string, pin func(t *testing.T, column string) matrixPin, side func(*testing.T)) {
	for row, c := range cells {
		for column, begin := range columns {
			t.Run(row+", "+column, func(t *testing.T) {
				side(t)
				var env []string
				if c.deadman != "" {
					env = append(env, "SANDPIPER_TEST_DEADMAN="+c.deadman)
				}
				c.test(newHousehold(t, pin(t, column), env...), begin)
			})
		}
	}
}

var columns = map[string]string{"relay high": "write relay 1 0s", "pulse running": "write relay 1 1h", "PWM on": "write heater 0.5 0s"}

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
	if column == "PWM on" {
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
	matrix(t, columns, filePin, (*testing.T).Parallel)
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
	newHousehold(t, filePin(t, "pulse running")).pulse()
}

func TestKilledAgentsNeverWriteToAnOutputThatIsOn(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, filePin(t, "relay high"))
	h.begin(columns["relay high"])
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
