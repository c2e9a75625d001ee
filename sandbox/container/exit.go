package container

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// How long resolve waits for a record, and how often it looks. The warden reaps
// and writes within a millisecond; a host's own init may take seconds.
const (
	recordPatience = 3 * time.Second
	recordInterval = 5 * time.Millisecond
)

// resolve finds out how the process ended, after it has ended. Who knows, in
// this order: the file an earlier agent wrote; we, if it is our child; the
// warden's ledger; the kernel.
func (i *Instance) resolve() sandbox.Exit {
	if e, ok := readExit(i.exitFile()); ok {
		i.reap()
		return e
	}
	if i.child != nil {
		// Written before it is reaped: whenever this agent is killed, the status is
		// either in the file or still to be had by the warden.
		if child, ok, err := peekChild(unix.P_PID, i.pid); err == nil && ok {
			e := i.record(child.status, true)
			i.reap()
			return e
		}
		if status, ok := i.reap(); ok {
			return i.record(status, true)
		}
	}
	timeout := time.NewTimer(recordPatience)
	defer timeout.Stop()
	again := time.NewTicker(recordInterval)
	defer again.Stop()
	for {
		if status, ok := i.r.exits.Find(i.pid, i.start); ok {
			return i.record(status, true)
		}
		if i.proc != nil {
			if status, ok := i.proc.exitStatus(); ok {
				return i.record(status, true)
			}
		}
		if e, ok := readExit(i.exitFile()); ok {
			return e
		}
		select {
		case <-again.C:
		case <-timeout.C:
			return i.record(0, false)
		}
	}
}

// reap collects our own child, once.
func (i *Instance) reap() (syscall.WaitStatus, bool) {
	if i.child == nil {
		return 0, false
	}
	ps, _ := i.child.Wait() // a non-zero code is an error to it
	i.child = nil
	if ps == nil {
		return 0, false
	}
	status, ok := ps.Sys().(syscall.WaitStatus)
	return status, ok
}

// record turns a status into an Exit and writes it down for the next agent.
func (i *Instance) record(status syscall.WaitStatus, known bool) sandbox.Exit {
	e := newExit(status, known, time.Now().Round(0))
	e.OOM = i.oomKills() > 0
	if err := writeExit(i.exitFile(), e); err != nil {
		i.r.logger(i.id).Warn("exit is not written down", "err", err)
	}
	return e
}

func newExit(status syscall.WaitStatus, known bool, at time.Time) sandbox.Exit {
	e := sandbox.Exit{Code: -1, At: at, Known: known}
	switch {
	case !known:
	case status.Signaled():
		e.Code = 128 + int(status.Signal())
		e.Signal = sandbox.SignalName(status.Signal())
	default:
		e.Code = status.ExitStatus()
	}
	return e
}

func (i *Instance) exitFile() string { return filepath.Join(i.r.stateOf(i.id), "exit") }

func readExit(path string) (sandbox.Exit, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return sandbox.Exit{}, false
	}
	var e sandbox.Exit
	if json.Unmarshal(b, &e) != nil || e.At.IsZero() {
		return sandbox.Exit{}, false
	}
	return e, true
}

// writeExit replaces the file in one step. It lies on a tmpfs: there is nothing
// to flush.
func writeExit(path string, e sandbox.Exit) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // destroyed meanwhile
		}
		return err
	}
	return os.Rename(tmp, path)
}
