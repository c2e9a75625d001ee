package sandboxtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// FakeInstance is an Instance of [Fake]. Beside the contract it can be dialled
// and ended from outside.
type FakeInstance struct {
	spec    sandbox.Spec
	pid     int
	made    time.Time
	program Program
	forget  func()
	ended   chan struct{} // closed when exit is set
	gone    sync.Once     // Destroy

	mu        sync.Mutex // guards what follows
	kill      context.CancelCauseFunc
	started   bool
	destroyed bool
	paused    bool
	stuck     error
	refused   sandbox.Refusals
	exhausted sandbox.Exhaustion
	exit      sandbox.Exit
	signals   chan syscall.Signal
	listeners map[string]*listener
}

func newInstance(s sandbox.Spec, pid int, now time.Time, p Program, forget func()) *FakeInstance {
	return &FakeInstance{
		spec: s, pid: pid, made: now, program: p, forget: forget,
		ended:     make(chan struct{}),
		signals:   make(chan syscall.Signal, 16), // like the kernel: pending, not waited for
		listeners: map[string]*listener{},
	}
}

// forced is the cause a program's context ends with when a test ends it.
type forced struct{ exit sandbox.Exit }

func (forced) Error() string { return "ended by the test" }

// Spec is what the instance was made from.
func (i *FakeInstance) Spec() sandbox.Spec { return i.spec }

// ID is the Spec's.
func (i *FakeInstance) ID() string { return i.spec.ID }

// Pid is a number no process of this host has, and 0 after the end.
func (i *FakeInstance) Pid() int {
	select {
	case <-i.ended:
		return 0
	default:
		return i.pid
	}
}

// Started is when Create was called.
func (i *FakeInstance) Started() time.Time { return i.made }

// Start runs the Program in a goroutine.
func (i *FakeInstance) Start() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.destroyed:
		return i.err("start", sandbox.ErrDestroyed)
	case i.started:
		return i.err("start", sandbox.ErrStarted)
	case i.over():
		return i.err("start", sandbox.ErrEnded)
	}
	i.started = true
	ctx, kill := context.WithCancelCause(context.Background())
	i.kill = kill
	go func() {
		p := &Process{Args: i.spec.Args, Env: i.spec.Env, Signals: i.signals, instance: i}
		exit := p.run(ctx, i.program)
		p.close()
		kill(nil)
		i.end(exit)
	}()
	return nil
}

func (i *FakeInstance) end(e sandbox.Exit) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.over() {
		return
	}
	e.At = time.Now()
	i.exit = e
	close(i.ended)
}

// over tells whether it has ended.
func (i *FakeInstance) over() bool {
	select {
	case <-i.ended:
		return true
	default:
		return false
	}
}

// Wait returns the Exit when there is one.
func (i *FakeInstance) Wait(ctx context.Context) (sandbox.Exit, error) {
	select {
	case <-i.ended:
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.exit, nil
	default:
	}
	select {
	case <-i.ended:
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.exit, nil
	case <-ctx.Done():
		return sandbox.Exit{}, i.err("wait", ctx.Err())
	}
}

// Signal gives the signal to the Program; SIGKILL is Kill.
func (i *FakeInstance) Signal(s os.Signal) error {
	sig, ok := s.(syscall.Signal)
	if !ok {
		return i.err("signal", fmt.Errorf("%v is no signal", s))
	}
	i.mu.Lock()
	switch {
	case i.destroyed:
		i.mu.Unlock()
		return i.err("signal", sandbox.ErrDestroyed)
	case i.over():
		i.mu.Unlock()
		return i.err("signal", sandbox.ErrEnded)
	}
	i.mu.Unlock()
	if sig == syscall.SIGKILL {
		return i.Kill()
	}
	select {
	case i.signals <- sig:
	default:
	}
	return nil
}

// Kill ends the Program's context.
func (i *FakeInstance) Kill() error {
	i.ForceExit(killed)
	return nil
}

var killed = sandbox.Exit{Code: 128 + int(syscall.SIGKILL), Signal: "SIGKILL", Known: true}

// ForceExit ends the instance as a test wants it, such as by the kernel's memory
// limit; At is filled in. It does nothing when the instance has ended.
func (i *FakeInstance) ForceExit(e sandbox.Exit) {
	i.mu.Lock()
	kill := i.kill
	i.mu.Unlock()
	if kill == nil { // waiting: there is no program to end
		i.end(e)
		return
	}
	kill(forced{e})
}

// Stick has Destroy fail with an error, until it is called with nil.
func (i *FakeInstance) Stick(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stuck = err
}

// Destroy kills, waits, closes listeners and frees the ID.
func (i *FakeInstance) Destroy() error {
	i.mu.Lock()
	stuck := i.stuck
	i.mu.Unlock()
	if stuck != nil {
		return i.err("destroy", stuck)
	}
	i.gone.Do(func() {
		_ = i.Kill() // never fails
		<-i.ended
		i.mu.Lock()
		i.destroyed = true
		i.mu.Unlock()
		i.closeListeners()
		i.forget()
	})
	return nil
}

// Stats counts one process of 1 MiB while it runs.
func (i *FakeInstance) Stats() (sandbox.Stats, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.destroyed {
		return sandbox.Stats{}, i.err("stats", sandbox.ErrDestroyed)
	}
	s := sandbox.Stats{MemoryPeak: 1 << 20, MemoryLimit: uint64(i.spec.Limits.Memory)}
	if !i.over() {
		s.Memory, s.Pids = 1<<20, 1
	}
	if i.exit.OOM {
		s.OOMKills = 1
	}
	return s, nil
}

// Pause notes that the instance is paused; its Program goes on.
func (i *FakeInstance) Pause() error { return i.pause(true) }

// Resume notes that it is not.
func (i *FakeInstance) Resume() error { return i.pause(false) }

func (i *FakeInstance) pause(on bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.destroyed:
		return i.err("pause", sandbox.ErrDestroyed)
	case i.over() && on:
		return i.err("pause", sandbox.ErrEnded)
	}
	i.paused = on
	return nil
}

// Paused tells whether it is paused.
func (i *FakeInstance) Paused() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.paused
}

// Refuse has Refused tell this.
func (i *FakeInstance) Refuse(r sandbox.Refusals) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refused = r
}

// Exhaust has Exhausted tell this.
func (i *FakeInstance) Exhaust(e sandbox.Exhaustion) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.exhausted = e
}

// Exhausted tells what Exhaust said.
func (i *FakeInstance) Exhausted() sandbox.Exhaustion {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.exhausted
}

// Refused tells what Refuse said.
func (i *FakeInstance) Refused() sandbox.Refusals {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.refused
}

// Listen makes a listener that only [FakeInstance.Dial] reaches.
func (i *FakeInstance) Listen(network, addr string) (net.Listener, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.destroyed:
		return nil, i.err("listen", sandbox.ErrDestroyed)
	case i.over():
		return nil, i.err("listen", sandbox.ErrEnded)
	case i.listeners[addr] != nil:
		return nil, i.err("listen", &net.OpError{Op: "listen", Net: network, Err: syscall.EADDRINUSE})
	}
	l := newListener(network, addr, func() { i.unlisten(addr) })
	i.listeners[addr] = l
	return l, nil
}

// Dial connects as the module's program would.
func (i *FakeInstance) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	i.mu.Lock()
	l := i.listeners[addr]
	i.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	return l.dial(ctx)
}

func (i *FakeInstance) unlisten(addr string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.listeners, addr)
}

func (i *FakeInstance) closeListeners() {
	i.mu.Lock()
	var all []*listener
	for _, l := range i.listeners {
		all = append(all, l)
	}
	i.mu.Unlock()
	for _, l := range all {
		_ = l.Close() // never fails
	}
}

func (i *FakeInstance) wasStarted() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.started
}

// Exec runs the Program with the command's Args.
func (i *FakeInstance) Exec(ctx context.Context, c sandbox.Command) (sandbox.Exit, error) {
	i.mu.Lock()
	running := i.started && !i.over() && !i.destroyed
	i.mu.Unlock()
	if !running {
		return sandbox.Exit{}, i.err("exec", sandbox.ErrEnded)
	}
	stdout := c.Stdout
	if stdout == nil {
		stdout = io.Discard
	}
	p := &Process{Args: c.Args, Env: c.Env, Signals: make(chan syscall.Signal), instance: i, out: stdout}
	exit := p.run(ctx, i.program)
	exit.At = time.Now()
	return exit, nil
}

func (i *FakeInstance) err(op string, err error) error {
	return fmt.Errorf("sandbox %s: %s: %w", i.spec.ID, op, err)
}
