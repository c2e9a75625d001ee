package effective

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scratch is memory for calls that want some: the kernel writes to it, and nobody reads it.
var scratch [4096]byte

func mem() uintptr { return uintptr(unsafe.Pointer(&scratch)) }

// str is the address of a constant, which lies in the binary; it ends with a NUL.
func str(s string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(s))) }

// call makes a system call, most with arguments that cannot do anything.
func call(nr uintptr, args ...uintptr) func() error {
	return func() error {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno
		}
		return nil
	}
}

const bad = ^uintptr(0) // no descriptor, no pointer

func mounts() []probe {
	return []probe{
		{"mount a file system", func() error { return unix.Mount("", "/", "", unix.MS_BIND, "") }}, // no source: invalid where it is permitted
		{"remount the root", func() error { return unix.Mount("", "/nonexistent-directory/..", "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
		{"unmount a file system", func() error { return unix.Unmount("/", 0x40) }}, // a flag that does not exist
		{"move the root", func() error { return unix.PivotRoot("/", "/") }},
		{"change the root", func() error { return unix.Chroot("/") }},
		{"clone a mount", call(unix.SYS_OPEN_TREE, bad, str("\x00"), unix.OPEN_TREE_CLONE|unix.AT_EMPTY_PATH)},
		{"make a mount from nothing", call(unix.SYS_FSOPEN, str("tmpfs\x00"), 0)},
		{"change a mount's attributes", call(unix.SYS_MOUNT_SETATTR, bad, str("\x00"), unix.AT_EMPTY_PATH, mem(), 32)},
		{"open a file by handle", call(unix.SYS_OPEN_BY_HANDLE_AT, bad, mem(), 0)},
		{"set quotas", call(unix.SYS_QUOTACTL, 0x80000500, str("/dev/nothing\x00"), 0, 0)},
		{"swap to a file", call(unix.SYS_SWAPON, str("/nonexistent-file\x00"), 1<<20)},
	}
}

func namespaces() []probe {
	return []probe{
		{"make a user namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"make a mount namespace", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
		{"make a network namespace", func() error { return unix.Unshare(unix.CLONE_NEWNET) }},
		{"make a cgroup namespace", func() error { return unix.Unshare(unix.CLONE_NEWCGROUP) }},
		{"enter a namespace", func() error { return unix.Setns(-1, unix.CLONE_NEWNS) }},
		{"clone into a user namespace", call(unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_FS|uintptr(unix.SIGCHLD), 0, 0, 0, 0)}, // flags that exclude each other
		{"clone with flags in memory", call(unix.SYS_CLONE3, mem(), 0)},
	}
}

func processes() []probe {
	return []probe{
		{"trace a process", call(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1<<30, 0, 0)},
		{"read another process's memory", call(unix.SYS_PROCESS_VM_READV, 1<<30, mem(), 1, mem(), 1, 0)},
		{"write another process's memory", call(unix.SYS_PROCESS_VM_WRITEV, 1<<30, mem(), 1, mem(), 1, 0)},
		{"compare processes", call(unix.SYS_KCMP, 1<<30, 1<<30, 0, 0, 0)},
		{"take another process's descriptor", call(unix.SYS_PIDFD_GETFD, bad, 0, 0)},
		{"see the host's processes", seeHostProcesses},
		{"see another module's processes", seeManyProcesses},
		{"lower its niceness", func() error {
			now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
			if err != nil {
				return err
			}
			return unix.Setpriority(unix.PRIO_PROCESS, 0, 20-now-1)
		}},
		{"become a real-time process", call(unix.SYS_SCHED_SETSCHEDULER, 0, 1, str("\x01\x00\x00\x00\x00"))},
		{"raise its own limits", raiseLimit},
	}
}

// seeHostProcesses looks for the kernel's own threads.
func seeHostProcesses() error {
	raw, err := os.ReadFile("/proc/2/comm")
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(raw)) != "kthreadd" {
		return errNone
	}
	return found("kernel threads in /proc")
}

// seeManyProcesses looks for a process of another user namespace.
func seeManyProcesses() error {
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		ns, err := os.Readlink("/proc/" + e.Name() + "/ns/user")
		if err == nil && ns != own {
			return found("process " + e.Name())
		}
	}
	return errNone
}

func raiseLimit() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	old := l
	l.Max++
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
}

func kernel() []probe {
	list := []probe{
		{"load a BPF program", call(unix.SYS_BPF, 5, mem(), 0)},
		{"watch the CPU's counters", call(unix.SYS_PERF_EVENT_OPEN, bad, 0, 0, bad, 0)},
		{"use the kernel's keyrings", call(unix.SYS_KEYCTL, 0, bad, 0)}, // id of the thread's own ring
		{"add a key", call(unix.SYS_ADD_KEY, str("nonsense\x00"), str("k\x00"), 0, 0, 0)},
		{"ask for a key", call(unix.SYS_REQUEST_KEY, str("nonsense\x00"), str("k\x00"), 0, 0)},
		{"queue calls in a ring", call(unix.SYS_IO_URING_SETUP, 0, mem())},
		{"handle page faults", call(unix.SYS_USERFAULTFD, 1<<30)},
		{"load a kernel module", call(unix.SYS_INIT_MODULE, mem(), 0, str("\x00"))},
		{"load a kernel module from a file", call(unix.SYS_FINIT_MODULE, bad, str("\x00"), 0)},
		{"unload a kernel module", call(unix.SYS_DELETE_MODULE, str("no-such-module\x00"), unix.O_NONBLOCK)},
		{"load another kernel", call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0xffff)},
		{"restart the machine", call(unix.SYS_REBOOT, 0, 0, 0, 0)}, // without its magic numbers
		{"account processes", call(unix.SYS_ACCT, str("/nonexistent-directory/x\x00"))},
		{"read the kernel's log", call(unix.SYS_SYSLOG, 3, mem(), 1)},
		{"adjust the clock", adjustClock},
		{"set the clock", call(unix.SYS_CLOCK_SETTIME, 99, mem())},
		{"name the host", setSameHostname},
		{"place its memory", call(unix.SYS_SET_MEMPOLICY, 0, 0, 0)},
		{"take another personality", call(unix.SYS_PERSONALITY, 0x0400000)}, // READ_IMPLIES_EXEC
	}
	if runtime.GOARCH == "amd64" {
		const sysIopl, sysIoperm = 172, 173
		list = append(list, probe{"use I/O ports", call(sysIopl, 3)}, probe{"use one I/O port", call(sysIoperm, 0x80, 1, 1)})
	}
	return list
}

// adjustClock sets what it reads.
func adjustClock() error {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return err
	}
	const estimatedError = 0x8
	t.Modes = estimatedError
	_, err := unix.Adjtimex(&t)
	return err
}

func setSameHostname() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	return unix.Sethostname([]byte(name))
}

func socket(family, kind, protocol int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind, protocol)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
}

func sockets() []probe {
	return []probe{
		{"send raw packets", socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)},
		{"listen to the wire", socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)},
		{"use the kernel's cryptography", socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)},
		{"talk to the hypervisor", socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)},
		{"send on every CAN bus", socket(unix.AF_CAN, unix.SOCK_RAW, 1)},
		{"use Bluetooth", socket(unix.AF_BLUETOOTH, unix.SOCK_RAW, 1)},
		{"open a TCP socket", socket(unix.AF_INET, unix.SOCK_STREAM, 0)},
		{"open a local socket", socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)},
		{"list interfaces", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)},
		{"see other interfaces than loopback", seeInterfaces},
		{"bind a port below 1024", bindLow},
	}
}

// seeInterfaces names what is beside loopback and the tunnels that some kernels
// give every namespace.
func seeInterfaces() error {
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat("/sys/class/net/" + e.Name() + "/device"); err == nil || strings.HasPrefix(e.Name(), "eth") || strings.HasPrefix(e.Name(), "docker") {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return errNone
	}
	return found(strings.Join(names, " "))
}

// bindLow is permitted in a namespace of the sandbox's own, where it harms nobody.
func bindLow() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Bind(fd, &unix.SockaddrInet4{Port: 997, Addr: [4]byte{127, 0, 0, 1}})
}
