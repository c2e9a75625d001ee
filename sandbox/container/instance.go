package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Instance is one sandbox. See sandbox.Instance.
type Instance struct {
	r     *Runtime
	id    string
	group cgroups.Manager
	child waiter // nil when this agent is not its parent
	pid   int
	start uint64 // kernel's start time of pid
	made  time.Time
	netns bool
	proc  *pidfd        // nil when it had ended before Recover
	ended chan struct{} // closed when exit is set
	exit  sandbox.Exit  // after ended
	calls atomic.Uint64 // see countCalls

	mu        sync.Mutex // guards what follows
	started   bool
	destroyed bool
}

// waiter is a child process of this agent's.
type waiter interface {
	Wait() (*os.ProcessState, error)
}

// adopt makes the Instance of what was made and watches its process. child is nil
// for one that an earlier agent made.
func (r *Runtime) adopt(state *libcontainer.State, group cgroups.Manager, child waiter) (_ *Instance, err error) {
	i := &Instance{
		r: r, id: state.ID, group: group, child: child,
		pid: state.InitProcessPid, start: state.InitProcessStartTime,
		made: state.Created.Round(0), netns: hasNetwork(&state.Config),
		ended: make(chan struct{}),
	}
	i.proc, err = openPidfd(i.pid, i.start)
	switch {
	case err == nil:
		go i.watch()
	case child == nil: // of an earlier agent, and gone
		i.setExit(i.resolve())
	default:
		return nil, fmt.Errorf("watch process %d: %w", i.pid, err)
	}
	return i, nil
}

// watch waits for the end of the process.
func (i *Instance) watch() {
	if err := i.proc.waitEnd(); err != nil {
		i.r.logger(i.id).Error("process can no longer be watched", "err", err)
	}
	i.setExit(i.resolve())
}

func (i *Instance) setExit(e sandbox.Exit) {
	i.exit = e
	close(i.ended)
}

// over tells whether the process has ended.
func (i *Instance) over() bool {
	select {
	case <-i.ended:
		return true
	default:
		return false
	}
}

// ID is the Spec's.
func (i *Instance) ID() string { return i.id }

// Pid is the host's process id; 0 after the end.
func (i *Instance) Pid() int {
	if i.over() {
		return 0
	}
	return i.pid
}

// Started is when the process was made.
func (i *Instance) Started() time.Time { return i.made }

// Start lets the program run.
func (i *Instance) Start() error {
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
	if err := i.openGate(); err != nil {
		return i.err("start", err)
	}
	i.started = true
	return nil
}

// Wait returns how the program ended.
func (i *Instance) Wait(ctx context.Context) (sandbox.Exit, error) {
	if i.over() { // an ended context does not hide an end
		return i.exit, nil
	}
	select {
	case <-i.ended:
		return i.exit, nil
	case <-ctx.Done():
		return sandbox.Exit{}, i.err("wait", ctx.Err())
	}
}

// Signal sends to the program.
func (i *Instance) Signal(s os.Signal) error {
	sig, ok := s.(syscall.Signal)
	if !ok {
		return i.err("signal", fmt.Errorf("%v is no signal", s))
	}
	if i.isDestroyed() {
		return i.err("signal", sandbox.ErrDestroyed)
	}
	err := i.send(sig)
	if errors.Is(err, syscall.ESRCH) {
		err = sandbox.ErrEnded
	}
	if err != nil {
		return i.err("signal", err)
	}
	return nil
}

func (i *Instance) send(sig syscall.Signal) error {
	if i.proc == nil || i.over() {
		return syscall.ESRCH
	}
	return i.proc.signal(sig)
}

// Kill ends every process of the sandbox: the program is the first one of its
// pid namespace, and the kernel ends the others with it.
func (i *Instance) Kill() error {
	err := i.send(syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err != nil {
		return i.err("kill", err)
	}
	return i.thaw()
}

// killPatience is how long Destroy waits for a killed process. Only a driver
// that hangs takes longer than a moment.
const killPatience = 30 * time.Second

// Destroy kills what runs and removes every trace but the log. While it waits for a process that hangs, everything else can be asked.
func (i *Instance) Destroy() error {
	if i.isDestroyed() {
		return nil
	}
	if err := i.Kill(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	if _, err := i.Wait(ctx); err != nil {
		return i.err("destroy", fmt.Errorf("process %d does not end after SIGKILL; a device driver may hang, see dmesg", i.pid))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.destroyed {
		return nil
	}
	if err := i.group.Destroy(); err != nil {
		return i.err("destroy", oneLine(err))
	}
	if err := errors.Join(os.RemoveAll(i.r.stateOf(i.id)), i.r.removeRoot(i.id), i.r.removeNodes(i.id)); err != nil {
		return i.err("destroy", oneLine(err))
	}
	i.destroyed = true
	if i.proc != nil {
		i.proc.close()
	}
	i.r.forget(i.id)
	return nil
}

func (i *Instance) isDestroyed() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.destroyed
}

// Listen opens a listener in the sandbox's network namespace.
func (i *Instance) Listen(network, addr string) (net.Listener, error) {
	switch {
	case i.isDestroyed():
		return nil, i.err("listen", sandbox.ErrDestroyed)
	case i.over():
		return nil, i.err("listen", sandbox.ErrEnded)
	}
	if !i.netns {
		l, err := new(net.ListenConfig).Listen(context.Background(), network, addr)
		if err != nil {
			return nil, i.err("listen", err)
		}
		return l, nil
	}
	var l net.Listener
	err := inside(i.proc, func() (err error) {
		l, err = new(net.ListenConfig).Listen(context.Background(), network, addr)
		return err
	})
	if err != nil {
		return nil, i.err("listen", err)
	}
	return l, nil
}

// ListenPacket opens a datagram socket in the sandbox's network namespace.
func (i *Instance) ListenPacket(network, addr string) (net.PacketConn, error) {
	switch {
	case i.isDestroyed():
		return nil, i.err("listen", sandbox.ErrDestroyed)
	case i.over():
		return nil, i.err("listen", sandbox.ErrEnded)
	case !i.netns:
		return nil, i.err("listen", errors.New("the network is the host's"))
	}
	var c net.PacketConn
	err := inside(i.proc, func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(context.Background(), network, addr)
		return err
	})
	if err != nil {
		return nil, i.err("listen", err)
	}
	return c, nil
}

// Dial connects to what listens in the sandbox's network namespace.
func (i *Instance) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	switch {
	case i.isDestroyed():
		return nil, i.err("dial", sandbox.ErrDestroyed)
	case i.over():
		return nil, i.err("dial", sandbox.ErrEnded)
	}
	if !i.netns {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	err = inside(i.proc, func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

func (i *Instance) err(op string, err error) error {
	return fmt.Errorf("sandbox %s: %s: %w", i.id, op, err)
}
