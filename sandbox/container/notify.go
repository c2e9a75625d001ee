package container

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notifier hears the agent's sd_notify messages and passes them on. systemd listens
// to the main process of a unit only, and that is the warden.
type notifier struct {
	conn *net.UnixConn // nil: the agent cannot be heard
	up   bool          // there is somebody to pass on to
	path string
	log  *slog.Logger
	done chan struct{}

	ready, alive atomic.Bool  // what the agent has said since forget
	gone         atomic.Int32 // the process whose last words are nobody's any more
}

// maxNotify is the size in bytes of the longest message passed on.
const maxNotify = 4096

// newNotifier opens a socket for the agent. Without systemd above it is only there to
// hear whether the agent is well, and a directory whose name is too long for a socket
// does without.
func newNotifier(runDir string, log *slog.Logger) (*notifier, error) {
	n := &notifier{log: log, up: os.Getenv("NOTIFY_SOCKET") != "", path: filepath.Join(runDir, "notify"), done: make(chan struct{})}
	if err := os.Remove(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil && !n.up {
		close(n.done)
		return n, nil
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(n.path, 0o600), passCredentials(conn)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	n.conn = conn
	go n.run()
	return n, nil
}

func (n *notifier) run() {
	defer close(n.done)
	buf, control := make([]byte, maxNotify), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		size, more, _, _, err := n.conn.ReadMsgUnix(buf, control)
		if err != nil {
			return // closed
		}
		if pid := sender(control[:more]); pid == 0 || pid != n.gone.Load() {
			n.hear(string(buf[:size]))
		}
		n.send(passable(string(buf[:size])))
	}
}

// passCredentials has each message say who sent it.
func passCredentials(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Control(func(fd uintptr) { failure = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	return errors.Join(err, os.NewSyscallError("setsockopt", failure))
}

// hear notes what the agent says of itself.
func (n *notifier) hear(state string) {
	for line := range strings.SplitSeq(state, "\n") {
		switch line {
		case "READY=1":
			n.ready.Store(true)
		case "WATCHDOG=1":
			n.alive.Store(true)
		}
	}
}

// sender is the process that sent a message, 0 when the kernel does not say.
func sender(control []byte) int32 {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			return cred.Pid
		}
	}
	return 0
}

// forget is for another agent than the one that is gone, whose last words may come still.
func (n *notifier) forget(gone int) {
	n.gone.Store(int32(gone))
	n.ready.Store(false)
	n.alive.Store(false)
}

// well tells whether the agent has said that it runs and, later, that it still does.
// One that cannot be heard is taken at its being there.
func (n *notifier) well() bool { return n.conn == nil || n.ready.Load() && n.alive.Load() }

// send tells the service manager. Nobody is worse off when it does not hear.
func (n *notifier) send(state string) {
	if state == "" || !n.up {
		return
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("service manager is not told", "err", err)
	}
}

// passable drops what is about the sending process or comes with descriptors:
// the main process stays the warden.
func passable(state string) string {
	var keep []string
	for line := range strings.SplitSeq(state, "\n") {
		key, _, _ := strings.Cut(line, "=")
		switch key {
		case "", "MAINPID", "MAINPIDFDID", "FDSTORE", "FDSTOREREMOVE", "FDNAME", "FDPOLL", "BARRIER":
		default:
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "\n")
}

// VariableTrial is set for an agent on trial, to a time.Duration: after it the agent
// says once, by WATCHDOG=1, that it still works.
const VariableTrial = "SANDPIPER_TRIAL"

// environ is this process's environment with what the agent must see instead:
// our socket, a watchdog that is for it, and how long it is on trial (0: it is not).
func (n *notifier) environ(trial time.Duration) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "NOTIFY_SOCKET=") && !strings.HasPrefix(e, "WATCHDOG_PID=") && !strings.HasPrefix(e, VariableTrial+"=") {
			env = append(env, e)
		}
	}
	if n.conn != nil {
		env = append(env, "NOTIFY_SOCKET="+n.path)
	}
	if trial > 0 {
		env = append(env, VariableTrial+"="+trial.String())
	}
	return env
}

func (n *notifier) close() {
	if n.conn != nil {
		_ = n.conn.Close() // removes the socket file too
	}
	<-n.done
}
