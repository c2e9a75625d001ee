package container

import (
	"errors"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/container/entry"
)

// watchedCalls are refused as all others that are not allowed; only the agent does
// it, and counts. No program that is at home in a sandbox makes them: who does wants
// other mounts, another root or namespace, or the kernel itself.
const watchedCalls = `
 mount umount umount2 pivot_root chroot setns open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr open_by_handle_at
 init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff
`

// callPause is between two answers: who calls without end waits for itself, and not
// the agent with it.
const callPause = 10 * time.Millisecond

// The kernel's words (linux/seccomp.h): what it tells, and what it is answered.
type (
	seccompNotif struct {
		id         uint64
		pid, flags uint32
		data       [64]byte // struct seccomp_data
	}
	seccompAnswer struct {
		id    uint64
		value int64
		err   int32
		flags uint32
	}
)

// countCalls refuses and counts the watched calls of a sandbox, until its last
// process has ended. After a restart of the agent nobody does: the kernel refuses
// them then.
func (i *Instance) countCalls(child *entry.Child) {
	listener := child.Listener()
	if listener == nil {
		return
	}
	defer listener.Close()
	conn, err := listener.SyscallConn()
	if err != nil {
		return
	}
	pause := time.NewTicker(callPause)
	defer pause.Stop()
	for {
		told := false
		var failure error
		err := conn.Read(func(fd uintptr) bool {
			polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(polled, 0); err != nil || n == 0 {
				return err != nil && !errors.Is(err, unix.EINTR)
			}
			if polled[0].Revents&unix.POLLIN == 0 { // hung up: nobody is left under the filter
				failure = os.ErrClosed
				return true
			}
			told, failure = i.refuseCall(fd)
			return true
		})
		if err != nil || failure != nil {
			return
		}
		if told {
			<-pause.C
		}
	}
}

// refuseCall counts one call, and then answers it: who has been refused finds itself
// counted. Its caller may be gone meanwhile, and nobody told.
func (i *Instance) refuseCall(fd uintptr) (told bool, err error) {
	var notif seccompNotif
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&notif))); errno != 0 {
		if errno == unix.ENOENT || errno == unix.EINTR || errno == unix.EAGAIN {
			return false, nil
		}
		return false, os.NewSyscallError("receive call", errno)
	}
	i.calls.Add(1)
	answer := seccompAnswer{id: notif.id, err: -int32(unix.EPERM)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&answer)))
	if errno != 0 && errno != unix.ENOENT {
		return true, os.NewSyscallError("answer call", errno)
	}
	return true, nil
}
