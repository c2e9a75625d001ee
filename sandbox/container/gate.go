package container

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// openGate lets the program go: its process waits until somebody opens the FIFO
// for reading, and says so. It is gone afterwards, which tells a later agent that
// the program was started.
func (i *Instance) openGate() error {
	path := filepath.Join(i.r.stateOf(i.id), gateName)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if err := i.proc.control(func(process int) error { return passGate(fd, process) }); err != nil {
		return err
	}
	return os.Remove(path)
}

// Waiting tells whether the sandbox is made and its program was not let go yet.
func (i *Instance) Waiting() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.started && !i.destroyed && !i.over()
}

// passGate waits for the process's word, or for its end.
func passGate(gate, process int) error {
	word := make([]byte, 1)
	for {
		polled := []unix.PollFd{{Fd: int32(gate), Events: unix.POLLIN}, {Fd: int32(process), Events: unix.POLLIN}}
		if _, err := unix.Poll(polled, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		n, err := unix.Read(gate, word)
		switch {
		case n == 1:
			return nil
		case err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("read", err)
		case polled[1].Revents != 0:
			return sandbox.ErrEnded
		}
	}
}
