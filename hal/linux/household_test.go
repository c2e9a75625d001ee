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
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

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
	return []hal.Resource{{Name: "relay", Kind: hal.KindLED, Bus: "led", Safe: &low, Allow: all, LED: "relay"}, heater}
}

// beAgent serves the outputs and does what comes in, a line each: "write NAME VALUE PULSE", "again NAME", "gone",
// "module NAME".
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
	var fence atomic.Uint64
	var buf [256]byte
	for {
		n, err := os.Stdin.Read(buf[:]) // one line a write: nothing of the next agent's is taken
		if err != nil {
			return err
		}
		words := strings.Fields(string(buf[:n]))
		pid := 0
		switch words[0] {
		case "write":
			value, _ := strconv.ParseFloat(words[2], 64)
			pulse, _ := time.ParseDuration(words[3])
			var got uint64
			if got, err = s.Write(ctx, "m", words[1], value, pulse, 0); err == nil {
				fence.Store(got)
			}
		case "again": // under the fence of before
			_, err = s.Write(ctx, "m", words[1], 1, 0, fence.Load())
		case "gone":
			s.Gone("m", "module ended")
		case "module":
			pid, err = startModule(s, words[1])
		}
		fmt.Println("done", pid, err)
	}
}

// startModule starts the process of a module. What it says, a byte at a time, renews its lease where that has an end; its own end is its
// lease's. It returns when the module has been heard a few times.
func startModule(s *hal.Server, name string) (pid int, err error) {
	var lease hal.Lease
	if ttl := deadmanOf(); ttl > 0 {
		if lease, err = s.Acquire("m", []string{name}, ttl); err != nil {
			return 0, err
		}
	}
	cmd := exec.Command(os.Args[0]) //nolint:noctx // it ends with its parent
	cmd.Env = append(os.Environ(), holderVar+"=module")
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	says, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	hear := func() error {
		var b [1]byte
		if _, err := says.Read(b[:]); err != nil || lease.ID == "" {
			return err
		}
		_, err := s.Renew("m", lease.ID)
		return err
	}
	for range 3 {
		if err := hear(); err != nil {
			return 0, err
		}
	}
	go func() { // ends with the module
		for hear() == nil {
		}
		_ = cmd.Wait() // killed
		s.Gone("m", "module ended")
	}()
	return cmd.Process.Pid, nil
}

// beModule is alive for as long as it says so.
func beModule(string) error {
	for {
		if _, err := os.Stdout.WriteString("."); err != nil {
			return err
		}
		<-time.After(100 * time.Millisecond)
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

// module starts a module and has it drive the output: its pid.
func (h *household) module(begin string) int {
	h.t.Helper()
	words := strings.Fields(h.do("module " + h.pin.name))
	pid, err := strconv.Atoi(words[0])
	if err != nil || pid == 0 {
		h.t.Fatalf("start a module: got %v", words)
	}
	h.begin(begin)
	return pid
}

// lost is what the module is told that writes on: its lease ended.
func (h *household) lost() {
	h.t.Helper()
	if got := h.do("again " + h.pin.name); !strings.Contains(got, "lease_lost") {
		h.t.Errorf("the module writes on: got %s, want lease_lost", got)
	}
}
