package container_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// patience ends a test that would hang, also on a virtual board with little of the machine.
const patience = 3 * time.Minute

// idBases gives each sandbox of the tests a range of its own.
var idBases atomic.Uint32

// spec is a host view that runs a shell.
func spec(t *testing.T, id string) sandbox.Spec {
	t.Helper()
	app := openDir(t)
	return sandbox.Spec{
		ID: id, Args: []string{"/bin/bash", "-c", "exit 0"},
		Root:    sandbox.Root{Kind: sandbox.HostView, Image: app},
		IDBase:  sandbox.MinIDBase * (2048 + idBases.Add(1)),
		LogPath: filepath.Join(app, id+".log"),
	}
}

// openDir is a directory that strangers can reach, and whose name leaves room for that of a socket in it.
func openDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "sandbox-") //nolint:usetesting // t.TempDir is as long as the test's name, and a unix socket's path is not
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("something is left: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// running is an instance with its log.
type running struct {
	sandbox.Instance
	t   *testing.T
	log *os.File
	*bufio.Reader
}

func start(t *testing.T, r *container.Runtime, s sandbox.Spec) *running {
	t.Helper()
	out, err := sandbox.OpenLog(s.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	if err := out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	i, err := r.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Destroy(); err != nil {
			t.Errorf("destroy: %v", err)
		}
	})
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	return &running{i, t, out, bufio.NewReader(out)}
}

// wait returns how the program ended.
func (r *running) wait() sandbox.Exit {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	e, err := r.Wait(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// line is the next line of the log.
func (r *running) line() string {
	r.t.Helper()
	l, err := r.ReadString('\n')
	if err != nil {
		r.t.Fatalf("log: %v after %q", err, l)
	}
	return strings.TrimSuffix(l, "\n")
}

// rest is what the log still holds after the end: all of it is in the pipe then,
// and nobody waits for more.
func (r *running) rest() string {
	r.t.Helper()
	text, err := r.Peek(r.Buffered())
	if err != nil {
		r.t.Fatal(err)
	}
	rest := bytes.Clone(text)
	if err := r.log.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	conn, err := r.log.SyscallConn()
	if err != nil {
		r.t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for {
		var n int
		if cerr := conn.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), buf)
			return true
		}); cerr != nil {
			r.t.Fatal(cerr)
		}
		if errors.Is(err, unix.EAGAIN) || err == nil && n == 0 {
			return string(rest)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		rest = append(rest, buf[:n]...)
	}
}

// runShell runs a script to its end and returns what it printed.
func runShell(t *testing.T, r *container.Runtime, s sandbox.Spec, script string) string {
	t.Helper()
	s.Args = []string{"/bin/bash", "-c", script}
	i := start(t, r, s)
	i.wait()
	return i.rest()
}
