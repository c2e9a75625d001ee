package entry

// #cgo CFLAGS: -Os
import "C" // entry.c is part of this package

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
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
	conn *net.UnixConn // to it
}

// NewChild starts it. It runs nothing and owns nothing but its namespaces.
func NewChild(s Start) (*Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	socket, theirs := os.NewFile(uintptr(pair[0]), "entry"), os.NewFile(uintptr(pair[1]), "entry")
	defer socket.Close() // ours is a copy
	defer theirs.Close()
	ours, err := net.FileConn(socket)
	if err != nil {
		return nil, err
	}
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
	return &Child{p, ours.(*net.UnixConn)}, nil
}

// Play hands the script over and returns when the child waits at its gate. The
// error is the child's own words, or that it died.
func (c *Child) Play(s *Script) error {
	if err := s.check(); err != nil {
		return err
	}
	fds := make([]int, len(s.trees))
	for n, f := range s.trees {
		fds[n] = int(f.Fd())
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	size := binary.NativeEndian.AppendUint32(nil, uint32(len(s.steps)))
	_, _, err := c.conn.WriteMsgUnix(size, rights, nil)
	if err == nil {
		_, err = c.conn.Write(s.steps)
	}
	if err != nil {
		return c.silent(err)
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(c.conn, answer); err != nil {
		return c.silent(err)
	}
	if answer[0] != 'R' {
		text, err := io.ReadAll(io.LimitReader(c.conn, 1024))
		if err != nil {
			return c.silent(err)
		}
		return errors.New(string(text))
	}
	return nil
}

// Listener waits until the child, let go, is under its filter, and returns where the
// calls are told that the filter neither allows nor refuses; nil when there is no such
// place or the child has ended. It can be asked once.
func (c *Child) Listener() *os.File {
	defer func() { _ = c.conn.Close() }()
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.conn.ReadMsgUnix(make([]byte, 1), control)
	if err != nil || n == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	_ = unix.SetNonblock(fds[0], true) // else its reader holds a thread
	return os.NewFile(uintptr(fds[0]), "calls")
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
	_ = c.conn.Close()
	_ = c.Kill() // gone is as good
	_, _ = c.Wait()
}
