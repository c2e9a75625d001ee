package entry

// #cgo CFLAGS: -Os
import "C" // entry.c is part of this package

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start says how a Child begins.
type Start struct {
	Exe        *os.File // what is run; see Seal
	Gate       *os.File // FIFO (O_PATH) whose opening for reading lets the program go
	Namespaces uintptr  // CLONE_NEW* besides user, mount and pid, which are always new
	IDBase     int      // first host uid and gid
	IDCount    int
	Group      *os.File // cgroup of version 2 that it is born in; nil: that of the caller
	Stdout     *os.File // nil: the null device
	Stderr     *os.File
}

// Child is a process in namespaces of its own that waits for its script.
type Child struct {
	*os.Process
	socket *os.File
}

// NewChild starts it. It runs nothing and owns nothing but its namespaces.
func NewChild(s Start) (*Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "entry"), os.NewFile(uintptr(pair[1]), "entry")
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer null.Close()
	stream := func(f *os.File) *os.File {
		if f == nil {
			return null
		}
		return f
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: s.IDBase, Size: s.IDCount}}
	sys := &syscall.SysProcAttr{
		Setsid: true, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | s.Namespaces,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{}, // 0 and 0 of the new namespace
	}
	if s.Group != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(s.Group.Fd())
	}
	p, err := os.StartProcess("/proc/self/fd/5", []string{"sandpiper", "entry"}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"_SANDPIPER_ENTRY=1"},
		Files: []*os.File{null, stream(s.Stdout), stream(s.Stderr), theirs, s.Gate, s.Exe},
		Sys:   sys,
	})
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start in new namespaces: %w", err)
	}
	return &Child{p, ours}, nil
}

// Play hands the script over and returns when the child waits at its gate. The
// error is the child's own words, or that it died.
func (c *Child) Play(s *Script) error {
	if err := s.check(); err != nil {
		return err
	}
	defer c.socket.Close()
	fds := make([]int, len(s.trees))
	for n, f := range s.trees {
		fds[n] = int(f.Fd())
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	size := binary.NativeEndian.AppendUint32(nil, uint32(len(s.steps)))
	if err := unix.Sendmsg(int(c.socket.Fd()), size, rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return c.silent(os.NewSyscallError("sendmsg", err))
	}
	for rest := s.steps; len(rest) > 0; {
		n, err := unix.SendmsgN(int(c.socket.Fd()), rest, nil, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return c.silent(os.NewSyscallError("send", err))
		}
		rest = rest[n:]
	}
	answer, err := io.ReadAll(io.LimitReader(c.socket, 1024))
	switch {
	case err != nil || len(answer) == 0:
		return c.silent(err)
	case answer[0] != 'R':
		return errors.New(string(answer[1:]))
	}
	return nil
}

// silent is the error of a child that ended without a word.
func (c *Child) silent(err error) error {
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the sandbox's first process died: %w", err)
}

// Abandon ends a child that will not become a program.
func (c *Child) Abandon() {
	_ = c.socket.Close()
	_ = c.Kill() // gone is as good
	_, _ = c.Wait()
}
