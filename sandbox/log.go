package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// LogPipe is the size in bytes asked for the pipe behind a log FIFO: what a
// module can print while no agent reads.
const LogPipe = 256 << 10

// MakeLog makes the log FIFO if it is not there.
func MakeLog(path string) error {
	err := unix.Mkfifo(path, 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return &os.PathError{Op: "make log", Path: path, Err: err}
	}
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	if st.Mode().Type() != fs.ModeNamedPipe {
		return fmt.Errorf("make log %s: there is a file that is no FIFO; remove it", path)
	}
	return nil
}

// OpenLog opens a log FIFO for reading, and makes it if it is not there. It is
// opened for writing too, so that a read never sees the end of file: what a
// module printed stays in the pipe while any process of it, or any reader,
// holds it open. A read waits for output; a read deadline or Close ends that.
func OpenLog(path string) (*os.File, error) {
	if err := MakeLog(path); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open log", Path: path, Err: err}
	}
	growLog(fd)
	return os.NewFile(uintptr(fd), path), nil
}

// OpenLogWriter opens the end that a module gets: blocking, so that a full pipe
// makes the module wait instead of losing its line.
func OpenLogWriter(path string) (*os.File, error) {
	if err := MakeLog(path); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open log", Path: path, Err: err}
	}
	growLog(fd)
	return os.NewFile(uintptr(fd), path), nil
}

// growLog asks for a large pipe. The kernel may refuse (a per-user limit): the
// pipe then stays as it is, 64 KiB, which is only less patience.
func growLog(fd int) {
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err == nil && have < LogPipe {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, LogPipe)
	}
}
