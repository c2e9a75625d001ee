package sandboxtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// patience ends a test of the suite that would hang.
const patience = time.Minute

// Run tests that a runtime keeps the contract. The func makes an empty runtime;
// called again with the same t it makes the runtime of a restarted agent, which
// finds what the one before left. Programs are /bin/bash scripts in a HostView.
func Run(t *testing.T, open func(t *testing.T) sandbox.Runtime) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *suite){
		"a made instance waits for Start":             waits,
		"an exit code is kept for all who wait":       exitCode,
		"a signal reaches the program":                signalled,
		"a deaf program is stopped by force":          deaf,
		"output goes to the log":                      output,
		"an id is used once until it is destroyed":    sameID,
		"what cannot run is refused by Create":        refused,
		"a listener answers inside":                   listens,
		"two instances listen on the same address":    listensTwice,
		"nothing listens unless asked":                unheard,
		"a destroyed instance says so":                destroyed,
		"stats count a running program":               stats,
		"a restart finds what runs":                   recoversRunning,
		"a restart finds what ended":                  recoversEnded,
		"a restart clears what was never started":     recoversWaiting,
		"a further process runs in the sandbox":       execs,
		"a context that ended makes nothing":          cancelled,
		"the end of a context does not end a program": outlives,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			test(t, &suite{T: t, ctx: ctx, open: open, rt: open(t)})
		})
	}
}

// idBases gives each instance of one test run a range of its own.
var idBases atomic.Uint32

type suite struct {
	*testing.T
	ctx  context.Context //nolint:containedctx // one test's, and it ends with the test
	open func(*testing.T) sandbox.Runtime
	rt   sandbox.Runtime
}

func (s *suite) spec(id, script string) sandbox.Spec {
	s.Helper()
	app := s.TempDir()
	// The sandbox's users are strangers to the test's private directory.
	for d := app; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			s.Fatal(err)
		}
	}
	return sandbox.Spec{
		ID: id, Args: []string{"/bin/bash", "-c", script},
		Root:    sandbox.Root{Kind: sandbox.HostView, Image: app},
		IDBase:  sandbox.MinIDBase * (16 + idBases.Add(1)%1024),
		LogPath: filepath.Join(app, id+".log"),
	}
}

func (s *suite) create(spec sandbox.Spec) sandbox.Instance {
	s.Helper()
	i, err := s.rt.Create(s.ctx, spec)
	if err != nil {
		s.Fatalf("create: %v", err)
	}
	s.Cleanup(func() {
		if err := i.Destroy(); err != nil {
			s.Errorf("destroy: %v", err)
		}
	})
	return i
}

func (s *suite) run(spec sandbox.Spec) sandbox.Instance {
	s.Helper()
	i := s.create(spec)
	if err := i.Start(); err != nil {
		s.Fatalf("start: %v", err)
	}
	return i
}

func (s *suite) wait(i sandbox.Instance) sandbox.Exit {
	s.Helper()
	e, err := i.Wait(s.ctx)
	if err != nil {
		s.Fatalf("wait: %v", err)
	}
	return e
}

// lines opens a log. Before Start, if the program may end at once: what nobody
// holds open is gone.
func (s *suite) lines(spec sandbox.Spec) *bufio.Reader {
	s.Helper()
	f, err := sandbox.OpenLog(spec.LogPath)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = f.Close() })
	deadline, _ := s.ctx.Deadline()
	if err := f.SetReadDeadline(deadline); err != nil {
		s.Fatal(err)
	}
	return bufio.NewReader(f)
}

func (s *suite) wantLine(r *bufio.Reader, want string) {
	s.Helper()
	got, err := r.ReadString('\n')
	if err != nil || got != want+"\n" {
		s.Fatalf("log line: got %q, %v, want %q", got, err, want)
	}
}

func (s *suite) wantErr(what string, got, want error) {
	s.Helper()
	if !errors.Is(got, want) {
		s.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func waits(_ *testing.T, s *suite) {
	spec := s.spec("waits", ScriptPrint)
	before := time.Now()
	i := s.create(spec)
	if i.ID() != "waits" || i.Pid() == 0 {
		s.Errorf("got id %q, pid %d, want waits and a pid", i.ID(), i.Pid())
	}
	if d := i.Started().Sub(before); d < -2*time.Second || d > patience {
		s.Errorf("started %v after Create was called", d)
	}
	short, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
	defer cancel()
	_, err := i.Wait(short)
	s.wantErr("wait before start", err, context.DeadlineExceeded)
	if err := i.Start(); err != nil {
		s.Fatal(err)
	}
	s.wantErr("second start", i.Start(), sandbox.ErrStarted)
	if e := s.wait(i); e.Code != 0 || !e.Known {
		s.Errorf("got %+v, want a known code 0", e)
	}
}

func exitCode(_ *testing.T, s *suite) {
	i := s.run(s.spec("exits", ScriptExit))
	first, again := s.wait(i), s.wait(i)
	if first.Code != 7 || first.Signal != "" || !first.Known || first.OOM || first.At.IsZero() {
		s.Errorf("got %+v, want a known code 7", first)
	}
	if first != again {
		s.Errorf("second wait: got %+v, want %+v", again, first)
	}
	if i.Pid() != 0 {
		s.Errorf("pid after the end: got %d, want 0", i.Pid())
	}
	s.wantErr("signal after the end", i.Signal(syscall.SIGTERM), sandbox.ErrEnded)
	s.wantErr("kill after the end", i.Kill(), nil)
	_, err := i.Listen("tcp", "127.0.0.1:8883")
	s.wantErr("listen after the end", err, sandbox.ErrEnded)
}

func signalled(_ *testing.T, s *suite) {
	spec := s.spec("signalled", ScriptHold)
	i := s.run(spec)
	s.wantLine(s.lines(spec), "ready")
	e, err := sandbox.Stop(s.ctx, i, 0, patience)
	if err != nil || e.Code != 3 || e.Signal != "" {
		s.Errorf("got %+v, %v, want code 3", e, err)
	}
}

func deaf(_ *testing.T, s *suite) {
	spec := s.spec("deaf", ScriptDeaf)
	i := s.run(spec)
	s.wantLine(s.lines(spec), "ready")
	e, err := sandbox.Stop(s.ctx, i, syscall.SIGTERM, 50*time.Millisecond)
	if err != nil || e.Code != 137 || e.Signal != "SIGKILL" || !e.Known || e.OOM {
		s.Errorf("got %+v, %v, want code 137 by SIGKILL", e, err)
	}
}

func output(_ *testing.T, s *suite) {
	spec := s.spec("prints", ScriptPrint)
	log := s.lines(spec)
	i := s.run(spec)
	s.wantLine(log, "one")
	s.wantLine(log, "two")
	s.wait(i)
}

func sameID(_ *testing.T, s *suite) {
	spec := s.spec("same", ScriptExit)
	i := s.create(spec)
	_, err := s.rt.Create(s.ctx, spec)
	s.wantErr("second create", err, sandbox.ErrExists)
	if err := i.Destroy(); err != nil {
		s.Fatal(err)
	}
	s.create(spec)
}

func refused(_ *testing.T, s *suite) {
	spec := s.spec("low", ScriptExit)
	spec.Limits.Memory = 512 << 10
	_, err := s.rt.Create(s.ctx, spec)
	if err == nil || err.Error() != spec.Validate().Error() {
		s.Errorf("got %v, want %v", err, spec.Validate())
	}
	spec = s.spec("missing", "")
	spec.Args = []string{Missing}
	_, err = s.rt.Create(s.ctx, spec)
	if err == nil || !strings.Contains(err.Error(), "sandbox missing: ") || !strings.Contains(err.Error(), Missing) || strings.Contains(err.Error(), "\n") {
		s.Errorf("got %v, want one line that names the instance and the program", err)
	}
	spec.Args = []string{"/bin/bash", "-c", ScriptExit}
	s.create(spec) // nothing of the refused one is in the way
}

// serve answers one line per connection, where ScriptDial asks, with a name.
func (s *suite) serve(i sandbox.Instance, name string) {
	s.Helper()
	l, err := i.Listen("tcp", "127.0.0.1:8883")
	if err != nil {
		s.Fatalf("listen: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			_, _ = fmt.Fprintf(c, "%s got %s\n", name, strings.TrimSpace(line))
			_ = c.Close()
		}
	}()
	s.Cleanup(func() {
		_ = l.Close()
		<-done
	})
}

func listens(_ *testing.T, s *suite) {
	spec := s.spec("dials", ScriptDial)
	log := s.lines(spec)
	i := s.create(spec)
	s.serve(i, "agent")
	if err := i.Start(); err != nil {
		s.Fatal(err)
	}
	s.wantLine(log, "agent got ping")
	if e := s.wait(i); e.Code != 0 {
		s.Errorf("got %+v, want code 0", e)
	}
}

func listensTwice(_ *testing.T, s *suite) {
	for _, name := range []string{"left", "right"} {
		spec := s.spec(name, ScriptDial)
		log := s.lines(spec)
		i := s.create(spec)
		s.serve(i, name)
		_, err := i.Listen("tcp", "127.0.0.1:8883")
		s.wantErr("listen again", err, syscall.EADDRINUSE)
		if c, err := (&net.Dialer{}).DialContext(s.ctx, "tcp", "127.0.0.1:8883"); err == nil {
			_ = c.Close()
			s.Error("the host reaches the sandbox's listener")
		}
		if err := i.Start(); err != nil {
			s.Fatal(err)
		}
		s.wantLine(log, name+" got ping")
	}
}

func unheard(_ *testing.T, s *suite) {
	other := s.create(s.spec("other", ScriptHold))
	s.serve(other, "other")
	if e := s.wait(s.run(s.spec("unheard", ScriptDial))); e.Code != 1 {
		s.Errorf("got %+v, want code 1: nobody listens here", e)
	}
}

func destroyed(_ *testing.T, s *suite) {
	i := s.run(s.spec("gone", ScriptDeaf))
	for range 2 {
		if err := i.Destroy(); err != nil {
			s.Fatalf("destroy: %v", err)
		}
	}
	if e := s.wait(i); e.Signal != "SIGKILL" {
		s.Errorf("got %+v, want SIGKILL", e)
	}
	s.wantErr("start", i.Start(), sandbox.ErrDestroyed)
	s.wantErr("signal", i.Signal(syscall.SIGTERM), sandbox.ErrDestroyed)
	s.wantErr("kill", i.Kill(), nil)
	_, err := i.Stats()
	s.wantErr("stats", err, sandbox.ErrDestroyed)
	_, err = i.Listen("tcp", "127.0.0.1:8883")
	s.wantErr("listen", err, sandbox.ErrDestroyed)
}

func stats(_ *testing.T, s *suite) {
	spec := s.spec("stats", ScriptHold)
	spec.Limits.Memory = 64 << 20
	i := s.run(spec)
	s.wantLine(s.lines(spec), "ready")
	got, err := i.Stats()
	if err != nil {
		s.Fatal(err)
	}
	if f := s.rt.Probe(); f.Memory && (got.Memory == 0 || got.MemoryLimit != 64<<20) || f.Pids && got.Pids == 0 {
		s.Errorf("got %+v, want memory, its limit and pids", got)
	}
}

func execs(_ *testing.T, s *suite) {
	spec := s.spec("host", ScriptHold)
	i := s.run(spec)
	s.wantLine(s.lines(spec), "ready")
	e, ok := i.(sandbox.Execer)
	if !ok {
		s.Skip("this runtime has no Exec")
	}
	var out strings.Builder
	exit, err := e.Exec(s.ctx, sandbox.Command{Args: []string{"/bin/bash", "-c", ScriptPrint}, Stdout: &out, Stderr: &out})
	if err != nil || exit.Code != 0 || out.String() != "one\ntwo\n" {
		s.Errorf("got %+v, %v, %q, want code 0 and two lines", exit, err, out.String())
	}
	exit, err = e.Exec(s.ctx, sandbox.Command{Args: []string{"/bin/bash", "-c", ScriptExit}})
	if err != nil || exit.Code != 7 || !exit.Known {
		s.Errorf("got %+v, %v, want code 7", exit, err)
	}
	if i.Pid() == 0 {
		s.Error("the end of a further process ended the program")
	}
}

func cancelled(_ *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.rt.Create(ctx, s.spec("never", ScriptHold))
	s.wantErr("create", err, context.Canceled)
}

func outlives(_ *testing.T, s *suite) {
	spec := s.spec("outlives", ScriptHold)
	ctx, cancel := context.WithCancel(s.ctx)
	i, err := s.rt.Create(ctx, spec)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = i.Destroy() })
	if err := i.Start(); err != nil {
		s.Fatal(err)
	}
	cancel()
	s.wantLine(s.lines(spec), "ready")
	if i.Pid() == 0 {
		s.Error("the program ended with the context of Create")
	}
}
