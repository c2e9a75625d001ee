package sandbox

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// What a caller may have to decide on.
var (
	// ErrExists: an instance with this ID is there; destroy it first.
	ErrExists = errors.New("an instance with this id exists")
	// ErrEnded: the program has ended, so it can be neither started nor signalled.
	ErrEnded = errors.New("the instance has ended")
	// ErrDestroyed: the instance was destroyed.
	ErrDestroyed = errors.New("the instance was destroyed")
	// ErrStarted: the program was let go before.
	ErrStarted = errors.New("the instance was started before")
	// ErrUnsupported: the kernel lacks what the Spec asks for; see [Features].
	ErrUnsupported = errors.New("not supported by this kernel")
)

// Runtime makes sandboxes. Its methods may be called by any goroutine.
type Runtime interface {
	// Create makes the sandbox up to the point where its program could run. The
	// context bounds the making only.
	Create(ctx context.Context, s Spec) (Instance, error)
	// Recover returns, once after a start of the agent and before the first
	// Create, every instance that was started and not destroyed, running or
	// ended: Wait tells. It clears away whatever a dead agent left half made,
	// and instances that were never started.
	Recover(ctx context.Context) ([]Instance, error)
	// Probe tells what the kernel offers. It is cheap after the first call.
	Probe() Features
}

// Instance is one module. Its methods may be called by any goroutine.
//
//	Create → waiting --Start--> running --program ends--> ended --Destroy--> gone
//
// Destroy is legal in each state.
type Instance interface {
	// ID is the Spec's.
	ID() string
	// Pid is the host's process id of the program; 0 once it has ended.
	Pid() int
	// Started is when the process was made, as written down then: the same before
	// and after a restart of the agent, and after the program ended.
	Started() time.Time
	// Listen opens a TCP listener in the instance's network namespace: waiting or
	// running. The sockets belong to the agent and end with it, so it is called
	// again after Recover. A listener must be closed by its caller; Destroy does
	// not close it.
	Listen(network, addr string) (net.Listener, error)
	// Start lets the program run. It returns [ErrStarted] the second time.
	Start() error
	// Wait returns when the program has ended, or with ctx's error. Any number of
	// callers may wait, before and after the end.
	Wait(ctx context.Context) (Exit, error)
	// Signal sends to the program only; [ErrEnded] when there is none any more. A
	// program that has no handler does not feel SIGTERM: it is the first process
	// of its namespace.
	Signal(s os.Signal) error
	// Kill ends every process of the sandbox and does not wait. It is no error
	// when there is none.
	Kill() error
	// Stats tells what the sandbox uses now.
	Stats() (Stats, error)
	// Destroy kills what runs, waits for it, and removes every trace but the log
	// FIFO. It may be repeated.
	Destroy() error
}

// Execer is an Instance that can run one more process in a running sandbox,
// under the same walls.
type Execer interface {
	// Exec returns when the process has ended; the end of ctx kills it.
	Exec(ctx context.Context, c Command) (Exit, error)
}

// Pauser is an Instance that can be held: its processes get no processor until
// they are resumed. It stays paused while the agent is away.
type Pauser interface {
	Pause() error
	// Resume is no error when nothing was paused. Kill resumes too.
	Resume() error
	Paused() bool
}

// Dialer is an Instance whose network namespace the agent can connect in. The
// address must be one of numbers.
type Dialer interface {
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
}

// PacketListener is an Instance in whose network namespace the agent can receive
// datagrams. As with Listen, the socket belongs to the agent.
type PacketListener interface {
	ListenPacket(network, addr string) (net.PacketConn, error)
}

// Refuser is an Instance that tells cheaply how often its walls stopped it.
type Refuser interface {
	Refused() Refusals
}

// Refusals are counted since Create.
type Refusals struct {
	Pids uint64 // processes that the limit refused
	OOM  uint64 // processes that the kernel killed for the limit of memory
	// Calls that no module has a use for: mounts, namespaces, kernel modules, reboot.
	// Counted since the agent started, and by the one that made the sandbox only.
	Calls uint64
}

// Exhauster is an Instance that tells what of its own it has used up now.
type Exhauster interface {
	Exhausted() Exhaustion
}

// Exhaustion is what is used up.
type Exhaustion struct {
	// Files: a process holds nearly as many files open as it may.
	Files bool
	// Full are the file systems in its memory, as paths inside, that hold no more.
	Full []string
}

// Command is a further process in a sandbox. Args, Env and User are as in
// [Spec]; Cwd is "/" if empty; a nil stream is empty or dropped. An os.File as a
// stream is handed over as it is.
type Command struct {
	Args, Env      []string
	Cwd, User      string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal, if set, is what all three streams are inside; everything printed
	// goes to Stdout.
	Terminal *Terminal
}

// Terminal is one of a process's own.
type Terminal struct {
	Size
	Resize <-chan Size // later sizes
}

// Size of a terminal in characters; zero = the kernel's default.
type Size struct{ Rows, Cols uint16 }

// Exit is how a program ended.
type Exit struct {
	// Code of exit; 128 + number of the signal when a signal ended it; -1 when
	// not Known.
	Code int
	// Signal that ended it, such as "SIGKILL"; else empty.
	Signal string
	// At is when the agent learned of it.
	At time.Time
	// Known is false when the program ended while no one could record how: its
	// agent and its warden were both away, on a kernel before 6.15.
	Known bool
	// OOM: the kernel killed a process of this sandbox because its memory limit
	// was reached.
	OOM bool
}

// Stats is what a sandbox uses. A member that the kernel does not count is zero,
// or nil.
type Stats struct {
	Memory, MemoryPeak, MemoryLimit uint64        // bytes; limit 0 = none
	CPU                             time.Duration // since Create
	Throttled                       time.Duration // it wanted to run and its limit did not let it
	Pids, PidsLimit                 uint64        // processes and threads; limit 0 = none
	PidsRefused                     uint64        // forks that the limit refused
	OOMKills                        uint64        // since Create
	Read, Written                   uint64        // bytes from and to block devices
	// Share of the last ten seconds in which some process waited for it, per cent.
	CPUPressure, MemoryPressure, IOPressure *float64
}

// Features is what the kernel and the way the agent was started offer.
type Features struct {
	// Cgroup is "v1", "hybrid" or "v2"; empty without any.
	Cgroup string
	// What can be limited.
	Memory, Swap, Pids, CPU, IO bool
	UserNamespace               bool
	Seccomp                     bool
	// Overlay: images without the needed mount points can be used, and the
	// start of a sandbox copies nothing.
	Overlay bool
	// ExitInfo: the kernel keeps how a process ended for whoever holds a pidfd
	// (6.15), so that not even the warden is needed to learn it.
	ExitInfo bool
	// PivotRoot is false when "/" is an initramfs.
	PivotRoot bool
	// Degraded has a line for the operator for each thing that is missing: what,
	// and what it means.
	Degraded []string
}
