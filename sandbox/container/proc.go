package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// procStat is what is needed of /proc/<pid>/stat.
type procStat struct {
	state byte
	start uint64 // clock ticks after boot: with the pid, a name for the process
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	return parseStat(b)
}

// parseStat reads a line of /proc/<pid>/stat. The second field is the program's
// name in parentheses, and may hold anything.
func parseStat(line []byte) (procStat, error) {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return procStat{}, errors.New("stat: no command name")
	}
	f := strings.Fields(string(line[end+1:])) // f[0] is field 3
	const startTime = 22 - 3
	if len(f) <= startTime || len(f[0]) != 1 {
		return procStat{}, fmt.Errorf("stat: %d fields after the name", len(f))
	}
	start, err := strconv.ParseUint(f[startTime], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("stat: start time: %w", err)
	}
	return procStat{state: f[0][0], start: start}, nil
}

// ended is a child that has ended and was not reaped.
type ended struct {
	pid    int
	status syscall.WaitStatus
}

// peekChild looks for a child that has ended, without reaping it: kind and id
// are those of waitid(2). ok is false when there is none.
func peekChild(kind, id int) (_ ended, ok bool, err error) {
	// What the kernel fills in for a child (siginfo_t of SIGCHLD): the union after
	// the first three numbers is aligned for a pointer.
	var info struct {
		signo, errno, code int32
		_                  [unsafe.Sizeof(uintptr(0)) - 4]byte
		pid                int32
		_                  uint32 // uid
		status             int32
		_                  [128]byte // the rest of siginfo_t, and more
	}
	for {
		err = unix.Waitid(kind, id, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || info.pid == 0 {
		return ended{}, false, err
	}
	status := syscall.WaitStatus(info.status & 0x7f) // a signal
	if info.code == cldExited {
		status = syscall.WaitStatus(info.status&0xff) << 8
	}
	return ended{int(info.pid), status}, true, nil
}

// cldExited is CLD_EXITED: ended by itself, and not by a signal.
const cldExited = 1

// pidfd is a process that cannot be mistaken for another one. It is waited for
// through the runtime's poller: no thread stands behind a waiting module.
type pidfd struct {
	file *os.File
	conn syscall.RawConn
}

// openPidfd opens the process with that start time.
func openPidfd(pid int, start uint64) (*pidfd, error) {
	fd, err := unix.PidfdOpen(pid, unix.O_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	p := &pidfd{file: os.NewFile(uintptr(fd), "pidfd")}
	if p.conn, err = p.file.SyscallConn(); err != nil {
		p.close()
		return nil, err
	}
	// Only now: the descriptor pins whoever has the number.
	st, err := readStat(pid)
	if err == nil && st.start != start {
		err = unix.ESRCH
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pidfd) close() { _ = p.file.Close() }

// waitEnd returns when the process has ended, reaped or not, or when close was
// called.
func (p *pidfd) waitEnd() error {
	return p.conn.Read(func(fd uintptr) bool {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(polled, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return err != nil || n > 0
		}
	})
}

func (p *pidfd) control(f func(fd int) error) error {
	var ferr error
	if err := p.conn.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

func (p *pidfd) signal(s syscall.Signal) error {
	return p.control(func(fd int) error { return unix.PidfdSendSignal(fd, s, nil, 0) })
}

// exitStatus asks the kernel (6.15) how a reaped process ended.
func (p *pidfd) exitStatus() (syscall.WaitStatus, bool) {
	var status syscall.WaitStatus
	err := p.control(func(fd int) error {
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		if err := unix.IoctlPidfdInfo(fd, &info); err != nil {
			return err
		}
		if info.Mask&unix.PIDFD_INFO_EXIT == 0 {
			return unix.ENODATA
		}
		status = syscall.WaitStatus(info.Exit_code)
		return nil
	})
	return status, err == nil
}
