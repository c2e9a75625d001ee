package container_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// household is a warden with its agent and one module.
type household struct {
	*testing.T
	dir    string
	env    []string
	mu     sync.Mutex // guards warden: the cleanup runs on its own
	warden *exec.Cmd
	lines  *bufio.Reader
}

func newHousehold(t *testing.T, script string, env ...string) *household {
	t.Helper()
	h := &household{T: t, dir: newStateDir(t)}
	if err := os.Chmod(h.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(h.dir, "app"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.dir, "report")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := sandbox.OpenLog(path) // a FIFO: its reader waits for lines
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	h.lines = bufio.NewReader(f)
	h.env = append(os.Environ(), append(env, envDir+"="+h.dir, envReport+"="+path, envScript+"="+script,
		envBase+"="+strconv.Itoa(int(spec(t, "base").IDBase)))...)
	t.Cleanup(h.end)
	h.startWarden()
	return h
}

func (h *household) startWarden() {
	h.Helper()
	exe, err := os.Executable()
	if err != nil {
		h.Fatal(err)
	}
	for _, e := range h.env { // the first agent is of the warden's own file, and not on trial
		if path, ok := strings.CutPrefix(e, envBinary+"="); ok {
			exe = path
		}
	}
	cmd := exec.Command(exe, "as-warden")
	cmd.Env = h.env
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.warden = cmd
}

// end stops what still runs, and clears what a killed household left.
func (h *household) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.warden != nil && h.warden.ProcessState == nil {
		_ = h.warden.Process.Signal(syscall.SIGTERM)
		_ = h.warden.Wait()
	}
	r, err := container.New(container.Config{StateDir: h.dir})
	if err != nil {
		h.Error(err)
		return
	}
	found, err := r.Recover(context.Background())
	if err != nil {
		h.Error(err)
	}
	for _, i := range found {
		if err := i.Destroy(); err != nil {
			h.Error(err)
		}
	}
}

// next is the agent's next report.
func (h *household) next(word string) []string {
	h.Helper()
	line, err := h.lines.ReadString('\n')
	if err != nil {
		h.Fatalf("report: %v", err)
	}
	f := strings.Fields(line)
	if f[0] != word {
		h.Fatalf("report: got %q, want %s", line, word)
	}
	return f[1:]
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (h *household) kill(pid string, s syscall.Signal) {
	h.Helper()
	if err := unix.Kill(number(h.T, pid), s); err != nil {
		h.Fatal(err)
	}
}

// log opens the module's log, from its beginning if nobody read before.
func (h *household) log() *bufio.Reader {
	h.Helper()
	f, err := sandbox.OpenLog(filepath.Join(h.dir, "log", "module"))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = f.Close() })
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		h.Fatal(err)
	}
	return bufio.NewReader(f)
}
