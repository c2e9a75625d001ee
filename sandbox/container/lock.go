package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// heldLock is a lock file that is locked.
type heldLock struct{ *os.File }

// Close unlocks before it closes: closing alone would not unlock while another
// thread is between fork and exec with a copy of the file.
func (l heldLock) Close() error {
	return errors.Join(unix.Flock(int(l.Fd()), unix.LOCK_UN), l.File.Close())
}

// lock takes a lock file in the runtime directory until it is closed, and writes
// the process id into it. It returns what the file says when another process
// holds it.
func lock(dir, name string) (_ io.Closer, holder string, err error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, "", err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		b, _ := io.ReadAll(io.LimitReader(f, 32))
		return nil, strings.TrimSpace(string(b)), errors.Join(errLocked, f.Close())
	}
	if err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Truncate(0), writePid(f)); err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	return heldLock{f}, "", nil
}

var errLocked = errors.New("locked")

func writePid(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// How long a new agent waits for the one before it, and how often it looks.
const (
	agentPatience = 10 * time.Second
	agentInterval = 20 * time.Millisecond
)

// LockAgent makes this process the one agent of a runtime directory, until the
// file is closed or the process ends. The agent calls it first of all: after the
// death of a warden the old agent may still be on its way out, and is waited for.
func LockAgent(ctx context.Context, runDir string) (io.Closer, error) {
	if err := os.MkdirAll(runDir, 0o711); err != nil {
		return nil, err
	}
	timeout := time.NewTimer(agentPatience)
	defer timeout.Stop()
	again := time.NewTicker(agentInterval)
	defer again.Stop()
	for {
		f, holder, err := lock(runDir, "agent.lock")
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("lock agent: %w", err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout.C:
			return nil, fmt.Errorf("another agent (pid %s) uses %s; stop it, or set another run_dir", holder, runDir)
		}
	}
}
