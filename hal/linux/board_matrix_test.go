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
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// matrixHold is short, and far longer than an agent needs to come back.
const matrixHold = 4 * time.Second

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

// beAgent serves one relay and does what comes in, a line each: "write VALUE PULSE", "gone", "read".
func beAgent(string) error {
	k, err := NewKeeper(3, matrixHold)
	if err != nil {
		return err
	}
	b, err := NewBoard(Config{})
	if err != nil {
		return err
	}
	low := 0.0
	relay := hal.Resource{Name: "relay", Kind: hal.KindLine, Bus: "gpio", Safe: &low, Allow: []string{"*"}, Line: &hal.LinePart{Chip: "matrix", Line: "RELAY", Direction: hal.Out}}
	s, err := hal.New(hal.ServerConfig{Resources: []hal.Resource{relay}, Backend: b, Keeper: k, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := s.Grant("m", []hal.Grant{{Name: "relay", Read: true, Write: true, Deadman: deadmanOf()}}); err != nil {
		return err
	}
	go s.Run(ctx)
	go k.Run(ctx, s.Heard)
	if _, err := s.Read(ctx, "m", "relay", hal.ClassRead, 0); err != nil {
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
			value, _ := strconv.ParseFloat(words[1], 64)
			pulse, _ := time.ParseDuration(words[2])
			var got uint64
			if got, err = s.Write(ctx, "m", "relay", value, pulse, 0); err == nil {
				fence = got
			}
		case "again": // under the fence of before
			_, err = s.Write(ctx, "m", "relay", 1, 0, fence)
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

// household is a warden with its agent, seen from the test.
type household struct {
	t      *testing.T
	warden *exec.Cmd
	say    io.Writer
	hear   *bufio.Scanner
	agent  int // pid
	sim    simChip
	trace  pinTrace
}

func newHousehold(t *testing.T, env ...string) *household {
	t.Helper()
	h := &household{t: t, sim: newSimChip(t, "matrix", "RELAY")}
	h.trace = h.sim.trace(t)
	h.warden = exec.CommandContext(t.Context(), os.Args[0])
	h.warden.Env = append(append(os.Environ(), holderVar+"=warden"), env...)
	h.warden.Stderr = os.Stderr
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

// wants waits until the pin's levels since the start are these, and a moment longer.
func (h *household) wants(levels ...string) {
	h.t.Helper()
	var got []string
	for range 200 {
		got = h.trace.of(h.t, 0)
		if slices.Equal(got, levels) {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	h.t.Errorf("trace: got %v, want %v", got, levels)
}

const rise = "set 0,out,set 1"

func up(more ...string) []string { return append(strings.Split(rise, ","), more...) }

func TestBoardKillMatrixOfModuleAgentAndWarden(t *testing.T) {
	for name, c := range map[string]struct {
		env  string
		test func(h *household)
	}{
		"module killed, relay high": {"", func(h *household) {
			h.do("write 1 0s")
			h.do("gone")
			h.wants(up("set 0")...)
		}},
		"module killed, pulse running": {"", func(h *household) {
			h.do("write 1 1h")
			h.do("gone")
			h.wants(up("set 0")...)
		}},
		"module stopped, relay high": {"SANDPIPER_TEST_DEADMAN=1s", func(h *household) {
			h.do("write 1 0s")
			h.wants(up("set 0")...)
			if got := h.do("again"); !strings.Contains(got, "lease_lost") {
				h.t.Errorf("after its time: got %s, want lease_lost", got)
			}
		}},
		"module stopped, pulse running": {"", func(h *household) {
			h.do("write 1 1s")
			h.wants(up("set 0")...)
		}},
		"agent killed, relay high": {"", func(h *household) {
			h.do("write 1 0s")
			h.signal(h.agent, unix.SIGKILL)
			h.ready()
			h.wants(up()...)
			h.do("gone") // the adopted lease is the module's
			h.wants(up("set 0")...)
		}},
		"agent killed, pulse running": {"", func(h *household) {
			h.do("write 1 3s")
			h.signal(h.agent, unix.SIGKILL)
			h.ready()
			h.wants(up("set 0")...) // the next agent ends it
		}},
		"agent stopped, relay high": {"", func(h *household) {
			h.do("write 1 0s")
			h.signal(h.agent, unix.SIGSTOP)
			h.wants(up("set 0")...) // the warden, after its hold
			h.signal(h.agent, unix.SIGCONT)
			for range 100 { // the agent learns of it, and says so to who drove the relay
				if strings.Contains(h.do("again"), "lease_lost") {
					return
				}
				<-time.After(50 * time.Millisecond)
			}
			h.t.Error("the module was never told that its lease ended")
		}},
		"warden stopped, relay high": {"", func(h *household) {
			h.do("write 1 0s")
			h.signal(h.warden.Process.Pid, unix.SIGSTOP)
			h.do("gone")
			h.wants(up("set 0")...)
			h.signal(h.warden.Process.Pid, unix.SIGCONT)
		}},
		"warden killed, relay high": {"", func(h *household) {
			h.do("write 1 0s")
			h.signal(h.warden.Process.Pid, unix.SIGKILL)
			_ = h.warden.Wait()
			for h.hear.Scan() { // the agent ends with it
			}
			h.agent = 0
			if h.sim.level(h.t, 0) {
				h.t.Error("gpio-sim lets its pull decide when the last descriptor is closed, and the pin is high")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			env := []string{}
			if c.env != "" {
				env = append(env, c.env)
			}
			c.test(newHousehold(t, env...))
		})
	}
}

// The whole of it: a server that adopts what the agent before held, 200 times over, and the pin never moves.
func TestBoardKilledAgentsNeverMoveARelayThatIsHigh(t *testing.T) {
	h := newHousehold(t)
	kills := 200
	if n, err := strconv.Atoi(os.Getenv("LAB_TEST_KILLS")); err == nil {
		kills = n
	}
	h.do("write 1 0s")
	for range kills {
		h.signal(h.agent, unix.SIGKILL)
		h.ready()
	}
	if got := h.trace.of(t, 0); !slices.Equal(got, up()) {
		t.Errorf("trace over %d kills: got %v, want the request and one rise", kills, got)
	}
	t.Logf("%d agents killed, trace %v", kills, h.trace.of(t, 0))
}
