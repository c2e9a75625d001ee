package container_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// The agent and warden of these tests are processes of their own, so that they
// can be killed. They are told what to do by the environment and report by
// lines in a file.
const (
	envDir    = "SANDPIPER_TEST_DIR"    // runtime directory
	envReport = "SANDPIPER_TEST_REPORT" // file the agent appends to
	envScript = "SANDPIPER_TEST_SCRIPT" // what the one module runs
	envBase   = "SANDPIPER_TEST_IDBASE"
	envExit   = "SANDPIPER_TEST_EXIT" // the agent ends at once with this code
	envTrial  = "SANDPIPER_TEST_TRIAL"
	envHang   = "SANDPIPER_TEST_HANG"
	envBinary = "SANDPIPER_TEST_BINARY" // what the warden starts agents from; default its own file
)

func wardenMain([]string) int {
	cfg := container.WardenConfig{RunDir: os.Getenv(envDir), Args: []string{os.Args[0], "as-agent"}}
	if path := os.Getenv(envBinary); path != "" {
		cfg.Binary, cfg.Trial = func() string { return path }, 3*time.Second
	}
	if trial, err := time.ParseDuration(os.Getenv(envTrial)); err == nil {
		cfg.Trial = trial
	}
	if hang, err := time.ParseDuration(os.Getenv(envHang)); err == nil {
		cfg.Hang = hang
	}
	err := container.Warden(context.Background(), cfg)
	var exit *container.AgentExit
	if errors.As(err, &exit) {
		return exit.Code
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// agentMain finds its module or starts it, serves it, and reports.
func agentMain([]string) int {
	if code, err := strconv.Atoi(os.Getenv(envExit)); err == nil {
		return code
	}
	if err := runAgent(); err != nil {
		report("error", err)
		return 1
	}
	return 0
}

func report(words ...any) {
	f, err := os.OpenFile(os.Getenv(envReport), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, words...); err != nil {
		panic(err)
	}
}

func runAgent() error {
	ctx := context.Background()
	dir := os.Getenv(envDir)
	held, err := container.LockAgent(ctx, dir)
	if err != nil {
		return err
	}
	defer held.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, container.SignalLeave)
	r, err := container.New(container.Config{StateDir: dir})
	if err != nil {
		return err
	}
	found, err := r.Recover(ctx)
	if err != nil {
		return err
	}
	word := "recovered"
	if len(found) == 0 {
		word = "started"
		base, err := strconv.ParseUint(os.Getenv(envBase), 10, 32)
		if err != nil {
			return err
		}
		i, err := r.Create(ctx, sandbox.Spec{
			ID: "module", Args: []string{"/bin/bash", "-c", os.Getenv(envScript)}, IDBase: uint32(base),
			Root:    sandbox.Root{Kind: sandbox.HostView, Image: filepath.Join(dir, "app")},
			LogPath: filepath.Join(dir, "log", "module"),
		})
		if err != nil {
			return err
		}
		found = []sandbox.Instance{i}
		if err := i.Start(); err != nil {
			return err
		}
	}
	i := found[0]
	l, err := i.Listen("tcp", "127.0.0.1:8883")
	if err == nil {
		defer l.Close()
	} else if !errors.Is(err, sandbox.ErrEnded) {
		return err
	}
	report(word, os.Getpid(), i.Pid(), i.Started().UnixNano())
	ended := make(chan struct{})
	go func() {
		e, err := i.Wait(ctx)
		report("exit", e.Code, e.Known, err)
		close(ended)
	}()
	if n := os.Getenv("NOTIFY_SOCKET"); n != "" {
		c, err := net.Dial("unixgram", n)
		if err != nil {
			return err
		}
		defer c.Close()
		for _, words := range []string{"READY=1\nMAINPID=1\nSTATUS=ready", "WATCHDOG=1"} {
			if _, err := c.Write([]byte(words)); err != nil {
				return err
			}
		}
	}
	if s := <-stop; s == container.SignalLeave {
		report("leaves")
		return nil
	}
	err = i.Destroy()
	<-ended
	report("stopped", err)
	return err
}

// counter prints 200 lines over about half a second and ends with code 43.
const counter = `for n in $(seq 200); do echo line $n; sleep 0.002; done; exit 43`

func TestModuleOutlivesAKilledAgent(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, counter)
	first := h.next("started")
	h.kill(first[0], syscall.SIGKILL)
	again := h.next("recovered")
	if again[0] == first[0] || again[1] != first[1] && again[1] != "0" || again[2] != first[2] {
		t.Errorf("recovered agent, pid, start: got %v, was %v", again, first)
	}
	if got := strings.Join(h.next("exit"), " "); got != "43 true <nil>" {
		t.Errorf("exit: got %s, want 43 true <nil>", got)
	}
	// Nobody has read until now, and the module is gone: all of it waited in the
	// pipe that the warden kept.
	out := h.log()
	for n := 1; n <= 200; n++ {
		if l, err := out.ReadString('\n'); err != nil || l != fmt.Sprintf("line %d\n", n) {
			t.Fatalf("line %d: got %q, %v", n, l, err)
		}
	}
}

func TestWardenKeepsTheExitOfAnOrphan(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, `exec sleep 1000`)
	first := h.next("started")
	// Stopped, the warden starts no new agent and reaps nothing: what ends now
	// ends without any parent that listens.
	h.kill(strconv.Itoa(h.warden.Process.Pid), syscall.SIGSTOP)
	h.kill(first[0], syscall.SIGKILL)
	h.kill(first[1], syscall.SIGKILL)
	h.kill(strconv.Itoa(h.warden.Process.Pid), syscall.SIGCONT)
	again := h.next("recovered")
	if again[2] != first[2] {
		t.Errorf("start: got %s, want %s", again[2], first[2])
	}
	if got := strings.Join(h.next("exit"), " "); got != "137 true <nil>" {
		t.Errorf("exit: got %s, want 137 true <nil>", got)
	}
	b, err := os.ReadFile(filepath.Join(h.dir, "exits"))
	if err != nil || !strings.Contains("\n"+string(b), "\n"+first[1]+" ") {
		t.Errorf("ledger: got %q, %v, want a line of pid %s", b, err, first[1])
	}
}

func TestModuleOutlivesAKilledWarden(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, `trap 'exit 45' USR1; echo ready; while :; do sleep 0.05; done`)
	first := h.next("started")
	out := h.log()
	if l, err := out.ReadString('\n'); err != nil || l != "ready\n" {
		t.Fatalf("got %q, %v, want ready", l, err)
	}
	h.kill(strconv.Itoa(h.warden.Process.Pid), syscall.SIGKILL)
	_ = h.warden.Wait()
	h.startWarden() // at once: its agent waits for the old one
	h.next("leaves")
	again := h.next("recovered")
	if again[1] != first[1] || again[2] != first[2] {
		t.Errorf("recovered pid, start: got %v, was %v", again[1:], first[1:])
	}
	h.kill(first[1], syscall.SIGUSR1)
	got := strings.Join(h.next("exit"), " ")
	want := "45 true <nil>"
	if r := openRuntime(t, h.dir); !r.Probe().ExitInfo {
		want = "-1 false <nil>" // the module's parent is the host's init by now
	}
	if got != want {
		t.Errorf("exit: got %s, want %s", got, want)
	}
}

func TestAgentMakesRoomForItsSuccessor(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, `sleep 1000`)
	first := h.next("started")
	for range 3 { // not a crash: no pause grows
		if err := h.warden.Process.Signal(container.SignalLeave); err != nil {
			t.Fatal(err)
		}
		h.next("leaves")
		again := h.next("recovered")
		if again[0] == first[0] || again[1] != first[1] || again[2] != first[2] {
			t.Errorf("recovered agent, pid, start: got %v, was %v", again, first)
		}
	}
}

func TestWardenEndsWithItsAgent(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, `sleep 1000`)
	h.next("started")
	if err := h.warden.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.next("exit")
	if got := h.next("stopped"); got[0] != "<nil>" {
		t.Errorf("stopped: got %v", got)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.warden.Wait(); err != nil {
		t.Errorf("warden: got %v, want code 0", err)
	}
}

func TestWardenDoesNotRepeatARefusedStart(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, "", envExit+"=2")
	h.mu.Lock()
	defer h.mu.Unlock()
	var exit *exec.ExitError
	if err := h.warden.Wait(); !errors.As(err, &exit) || exit.ExitCode() != container.ExitUsage {
		t.Errorf("warden: got %v, want code %d", err, container.ExitUsage)
	}
}

func TestSecondWardenIsRefused(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, `sleep 1000`)
	h.next("started")
	second := exec.Command(h.warden.Path, "as-warden")
	second.Env = h.env
	out, err := second.CombinedOutput()
	want := fmt.Sprintf("warden: sandpiper is running already in %s (pid %d); stop it, or set another run_dir\n", h.dir, h.warden.Process.Pid)
	if err == nil || string(out) != want {
		t.Errorf("got %v, %q, want %q", err, out, want)
	}
}

func TestServiceManagerHearsTheAgent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := manager.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	h := newHousehold(t, `sleep 1000`, "NOTIFY_SOCKET="+path)
	h.next("started")
	buf := make([]byte, 4096)
	n, err := manager.Read(buf)
	if want := "READY=1\nSTATUS=ready"; err != nil || string(buf[:n]) != want {
		t.Errorf("got %q, %v, want %q", buf[:n], err, want)
	}
}

func TestRestartsAreSoonUntilTheyAreMany(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	young := container.RestartDelays(time.Second, 9)
	want := []time.Duration{0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms}
	for n := range want {
		if young[n] != want[n] {
			t.Errorf("death %d after a second: got %v, want %v", n+1, young[n], want[n])
		}
	}
	for n, d := range container.RestartDelays(time.Minute, 3) {
		if d != 0 {
			t.Errorf("death %d after a minute: got %v, want 0", n+1, d)
		}
	}
}
