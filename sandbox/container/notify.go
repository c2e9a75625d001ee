package container

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifier passes the agent's sd_notify messages on. systemd listens to the main
// process of a unit only, and that is the warden.
type notifier struct {
	conn *net.UnixConn // nil: nobody listens
	path string
	log  *slog.Logger
	done chan struct{}
}

// maxNotify is the size in bytes of the longest message passed on.
const maxNotify = 4096

// newNotifier opens a socket for the agent, if this process has somebody to pass
// on to.
func newNotifier(runDir string, log *slog.Logger) (*notifier, error) {
	n := &notifier{log: log, done: make(chan struct{})}
	if os.Getenv("NOTIFY_SOCKET") == "" {
		close(n.done)
		return n, nil
	}
	n.path = filepath.Join(runDir, "notify")
	if err := os.Remove(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(n.path, 0o600); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	n.conn = conn
	go n.run()
	return n, nil
}

func (n *notifier) run() {
	defer close(n.done)
	buf := make([]byte, maxNotify)
	for {
		size, err := n.conn.Read(buf)
		if err != nil {
			return // closed
		}
		n.send(passable(string(buf[:size])))
	}
}

// send tells the service manager. Nobody is worse off when it does not hear.
func (n *notifier) send(state string) {
	if state == "" || n.conn == nil {
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

// environ is this process's environment with what the agent must see instead:
// our socket, and a watchdog that is for it.
func (n *notifier) environ() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "NOTIFY_SOCKET=") && !strings.HasPrefix(e, "WATCHDOG_PID=") {
			env = append(env, e)
		}
	}
	if n.conn != nil {
		env = append(env, "NOTIFY_SOCKET="+n.path)
	}
	return env
}

func (n *notifier) close() {
	if n.conn != nil {
		_ = n.conn.Close() // removes the socket file too
	}
	<-n.done
}
