package linux

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uevent is the kernel's word that a device came, went or got a driver.
type uevent struct {
	action    string // add, remove, change, bind, unbind, move
	devpath   string // below /sys
	subsystem string
}

// maxUevent is the kernel's buffer for one message (UEVENT_BUFFER_SIZE), with room for the head.
const maxUevent = 4096

var errUevent = errors.New("not a message of the kernel")

// parseUevent reads "add@/devices/…" and the assignments after it, each ended by a zero byte.
func parseUevent(b []byte) (uevent, error) {
	text, whole := strings.CutSuffix(string(b), "\x00")
	fields := strings.Split(text, "\x00")
	action, path, at := strings.Cut(fields[0], "@")
	if len(b) > maxUevent || !whole || !at || action == "" || !strings.HasPrefix(path, "/") {
		return uevent{}, errUevent
	}
	u := uevent{action: action, devpath: path}
	for _, f := range fields[1:] {
		if value, ok := strings.CutPrefix(f, "SUBSYSTEM="); ok {
			u.subsystem = value
		}
	}
	return u, nil
}

// ueventSocket listens to the kernel; no right is needed for that. Anybody in the namespace may send to the group,
// so only messages of port 0, the kernel's, are read.
type ueventSocket struct {
	file *os.File
	buf  [2 * maxUevent]byte
}

func openUevents() (*ueventSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		closeFD(fd)
		return nil, fmt.Errorf("bind the uevent socket: %w", err)
	}
	return &ueventSocket{file: os.NewFile(uintptr(fd), "uevent")}, nil
}

// errMissed says that messages were lost: the caller looks at the board again.
var errMissed = errors.New("uevents were lost")

// read waits for the kernel's next message. It ends with os.ErrClosed after Close.
func (s *ueventSocket) read() (uevent, error) {
	for {
		var from unix.RawSockaddrNetlink
		n, _, err := receive(s.file, s.buf[:], nil, unsafe.Pointer(&from), unix.SizeofSockaddrNetlink)
		if errors.Is(err, unix.ENOBUFS) {
			return uevent{}, errMissed
		}
		if err != nil {
			return uevent{}, err
		}
		if from.Family != unix.AF_NETLINK || from.Pid != 0 {
			continue
		}
		if u, err := parseUevent(s.buf[:n]); err == nil {
			return u, nil
		}
	}
}

func (s *ueventSocket) Close() error { return s.file.Close() }
