package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// WardenConfig of Warden.
type WardenConfig struct {
	// RunDir is the agent's runtime directory: the ledger, the locks and the
	// notify socket lie there, and the FIFOs in its directory "log" are kept open.
	// Default /run/sandpiper.
	RunDir string
	// Args start the agent: Args[0] is what it is called, not what is run.
	// Default: this process's name, "agent", "--child".
	Args []string
	// Binary names the executable to start, asked before each start: an update
	// puts another one there. Default: the path this process was started from, or
	// this very file when the path is gone.
	Binary func() string
	// Trial is how long an agent from another file than before has to live to be
	// kept, default 30 s; one that dies in that time so many times (Deaths, default
	// 3), or ends with ExitUsage, is replaced by the one before.
	Trial  time.Duration
	Deaths int
	// Hang is how long such an agent may take until it has said, by sd_notify, that
	// it runs and that it still does, default 2 minutes; then it is killed and replaced
	// by the one before, at once.
	Hang time.Duration
	// Inherit makes a file that the next agent has as descriptor 3; the variable names it in the
	// agent's environment. Asked before each start; the warden closes its own copy. Default: none.
	Inherit         func() (*os.File, error)
	InheritVariable string
	// Logger default: discard.
	Logger *slog.Logger
}

func (c WardenConfig) withDefaults() WardenConfig {
	if c.RunDir == "" {
		c.RunDir = defaultStateDir
	}
	if len(c.Args) == 0 {
		c.Args = []string{os.Args[0], "agent", "--child"}
	}
	if c.Binary == nil {
		c.Binary = ownBinary
	}
	if c.Trial == 0 {
		c.Trial = trialTime
	}
	if c.Deaths == 0 {
		c.Deaths = trialDeaths
	}
	if c.Hang == 0 {
		c.Hang = trialHang
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// ownBinary follows an update that replaced the file.
func ownBinary() string {
	path, err := os.Readlink("/proc/self/exe")
	if err == nil {
		path = strings.TrimSuffix(path, " (deleted)")
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path
		}
	}
	return "/proc/self/exe"
}

// SignalLeave asks an agent to end and to leave its modules running: another
// agent takes them over. It comes from the warden, and from the kernel when the
// warden is gone.
const SignalLeave = syscall.SIGUSR2

// AgentExit is how the agent ended for good.
type AgentExit struct{ Code int }

func (e *AgentExit) Error() string { return fmt.Sprintf("the agent ended with code %d", e.Code) }

// ExitUsage is the agent's exit code for a command line or a configuration that
// is refused: it will not be better the next time, and the warden ends too.
const ExitUsage = 2

// warden is the state of Warden: one goroutine, one thread.
type warden struct {
	cfg      WardenConfig
	exits    *Ledger
	notify   *notifier
	binaries *binaries
	pid      int       // of the agent; 0 between two
	last     int       // of the one before
	born     time.Time // when it was started
	fast     int       // how many died young, one after the other
	stopping bool
	handover bool // the agent was asked to make room for its successor
	hung     bool // the agent was killed because it did not say that it is well
}

// The pace of restarts. An agent is away for as short as can be, since modules
// wait for it once their log pipes are full; only one that dies young again and
// again is waited for.
const (
	youngDeath  = 5 * time.Second
	firstDelay  = 100 * time.Millisecond
	longDelay   = 5 * time.Second
	handoverMax = 10 * time.Second
)

// Warden starts the agent, and starts it again whenever it ends, until ctx ends
// or SIGTERM or SIGINT comes; then the agent is asked to end, and its exit is
// returned (nil for code 0, else an *AgentExit). SIGHUP is passed on: reload.
// SignalLeave is passed on, and the successor is started from Binary at once.
//
// It must be called once, by the process's main goroutine, and the process must
// start no other children.
func Warden(ctx context.Context, cfg WardenConfig) error {
	cfg = cfg.withDefaults()
	// The agent gets SignalLeave when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := os.MkdirAll(cfg.RunDir, 0o711); err != nil {
		return fmt.Errorf("warden: %w", err)
	}
	held, holder, err := lock(cfg.RunDir, "warden.lock")
	if errors.Is(err, errLocked) {
		return fmt.Errorf("warden: sandpiper is running already in %s (pid %s); stop it, or set another run_dir", cfg.RunDir, holder)
	}
	if err != nil {
		return fmt.Errorf("warden: lock: %w", err)
	}
	defer held.Close()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("warden: become child subreaper: %w", err)
	}
	n, err := newNotifier(cfg.RunDir, cfg.Logger)
	if err != nil {
		return fmt.Errorf("warden: notify socket: %w", err)
	}
	defer n.close()
	k, err := newLogKeeper(filepath.Join(cfg.RunDir, "log"), cfg.Logger)
	if err != nil {
		return fmt.Errorf("warden: keep logs: %w", err)
	}
	defer k.close()
	b, err := openBinaries(&cfg)
	if err != nil {
		return fmt.Errorf("warden: own file: %w", err)
	}
	defer b.close()
	w := &warden{cfg: cfg, exits: OpenLedger(cfg.RunDir), notify: n, binaries: b}
	return w.run(ctx)
}

func (w *warden) run(ctx context.Context) error {
	// One place each is enough: the kernel merges them as well.
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	orders := make(chan os.Signal, 8)
	signal.Notify(orders, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, SignalLeave)
	defer signal.Stop(orders)

	restart := time.NewTimer(0) // the first start
	defer restart.Stop()
	overdue := time.NewTimer(handoverMax)
	overdue.Stop()
	defer overdue.Stop()
	trial := time.NewTimer(w.cfg.Trial)
	defer trial.Stop()
	done := ctx.Done()
	for {
		select {
		case <-done:
			done = nil
			if w.stop(syscall.SIGTERM) {
				return nil
			}
		case s := <-orders:
			sig := s.(syscall.Signal) //nolint:forcetypeassert // all are, on Linux
			switch {
			case sig == syscall.SIGTERM || sig == syscall.SIGINT:
				if w.stop(sig) {
					return nil
				}
			case w.pid == 0: // the next one starts afresh anyway
			case sig == SignalLeave:
				w.handover = true
				overdue.Reset(handoverMax)
				w.kill(sig)
			default:
				w.kill(sig)
			}
		case <-overdue.C:
			w.cfg.Logger.Warn("agent does not make room, it is killed", "pid", w.pid)
			w.kill(syscall.SIGKILL)
		case <-trial.C:
			w.judge(trial)
		case <-restart.C:
			trial.Reset(w.cfg.Trial)
			if err := w.start(); err != nil {
				w.cfg.Logger.Error("agent does not start", "err", err)
				w.binaries.died(0, false)
				restart.Reset(w.delay())
			}
		case <-children:
			status, ended := w.reap()
			if !ended {
				continue
			}
			overdue.Stop()
			usage := status.Exited() && status.ExitStatus() == ExitUsage
			refused := !w.stopping && !w.handover && w.binaries.died(time.Since(w.born), usage || w.hung)
			if w.stopping || usage && !refused {
				return agentExit(status)
			}
			if refused {
				w.fast = 0
			}
			delay := w.delay()
			w.cfg.Logger.Warn("agent ended, it is started again", "pid", w.pid, "how", describe(status), "after", delay)
			w.notify.send("STATUS=The agent ended (" + describe(status) + ") and is started again")
			w.last, w.pid = w.pid, 0
			restart.Reset(delay)
		}
	}
}

// judge looks at an agent whose time on trial is over: it is kept once it is well, and
// killed when that takes too long.
func (w *warden) judge(trial *time.Timer) {
	switch {
	case w.pid == 0 || !w.binaries.onTrial():
	case w.notify.well():
		w.binaries.proven()
	case time.Since(w.born) < w.cfg.Hang:
		trial.Reset(min(w.cfg.Trial, w.cfg.Hang/4))
	case !w.stopping && !w.handover:
		w.cfg.Logger.Error("new agent does not say that it is well, it is killed", "pid", w.pid, "within", w.cfg.Hang)
		w.hung = true
		w.kill(syscall.SIGKILL)
	}
}

// stop asks the agent to end; true when there is none.
func (w *warden) stop(sig syscall.Signal) bool {
	w.stopping = true
	if w.pid == 0 {
		return true
	}
	w.notify.send("STOPPING=1")
	w.kill(sig)
	return false
}

func (w *warden) kill(sig syscall.Signal) {
	if w.pid == 0 {
		return
	}
	if err := unix.Kill(w.pid, sig); err != nil { // not reaped, so it is this one
		w.cfg.Logger.Warn("agent is not signalled", "pid", w.pid, "err", err)
	}
}

// start starts the agent. Not with package os: that would wait for children.
func (w *warden) start() error {
	w.born = time.Now()
	w.handover, w.hung = false, false
	w.notify.forget(w.last)
	args := append([]string(nil), w.cfg.Args...)
	binary := w.binaries.next()
	trial := time.Duration(0)
	if w.binaries.onTrial() {
		trial = w.cfg.Trial
	}
	attr := &syscall.ProcAttr{Env: w.notify.environ(trial), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Pdeathsig: SignalLeave}}
	done := w.inherit(attr)
	defer done()
	pid, err := syscall.ForkExec(binary, args, attr)
	if err != nil {
		return err
	}
	w.pid = pid
	return nil
}

// delay is how long to wait before the next start.
func (w *warden) delay() time.Duration {
	if w.handover {
		w.fast = 0
		return 0
	}
	if time.Since(w.born) >= youngDeath {
		w.fast = 0
	}
	w.fast++
	if w.fast == 1 {
		return 0
	}
	return min(firstDelay<<min(w.fast-2, 16), longDelay)
}

// reap collects every child that has ended, and writes each down but the agent:
// whoever looks for a module's exit finds it before the process is gone.
func (w *warden) reap() (agent syscall.WaitStatus, ended bool) {
	for {
		child, ok, err := peekChild(unix.P_ALL, 0)
		if err != nil || !ok {
			return agent, ended // no children, or none that has ended
		}
		if child.pid == w.pid {
			agent, ended = child.status, true
		} else {
			w.record(child)
		}
		var status syscall.WaitStatus
		for {
			_, err = syscall.Wait4(child.pid, &status, 0, nil)
			if !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if err != nil {
			w.cfg.Logger.Error("child is not reaped", "pid", child.pid, "err", err)
			return agent, ended
		}
	}
}

func (w *warden) record(child ended) {
	st, err := readStat(child.pid)
	if err == nil {
		err = w.exits.append(record{child.pid, st.start, child.status})
	}
	if err != nil {
		w.cfg.Logger.Error("exit is not written down", "pid", child.pid, "err", err)
	}
}

func agentExit(status syscall.WaitStatus) error {
	switch {
	case status.Signaled():
		return &AgentExit{128 + int(status.Signal())}
	case status.ExitStatus() != 0:
		return &AgentExit{status.ExitStatus()}
	default:
		return nil
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return sandbox.SignalName(status.Signal())
	}
	return "code " + strconv.Itoa(status.ExitStatus())
}
