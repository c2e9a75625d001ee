package container_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probeMain is a program in a sandbox that tries what a hostile module would. It
// prints the name of each attempt and of the error it met, as JSON.
func probeMain(args []string) int {
	if len(args) > 0 && args[0] == "hold" {
		select {} // until killed
	}
	if len(args) > 0 && args[0] == "peer" {
		return peerMain(args[1])
	}
	if len(args) > 0 && args[0] == "landlock" {
		_, _ = fmt.Fprintln(os.Stdout, landlockDepth())
		return 0
	}
	if len(args) > 0 && args[0] == "write" { // a mebibyte to each file
		for _, path := range args[1:] {
			err := os.WriteFile(path, make([]byte, 1<<20), 0o600)
			_, _ = fmt.Fprintln(os.Stdout, path, errors.Is(err, syscall.ENOSPC), err == nil)
		}
		return 0
	}
	if len(args) > 0 && args[0] == "reopen" {
		return reopenMain()
	}
	if len(args) > 0 && args[0] == "fork" { // until that is refused
		for n := 0; ; n++ {
			if _, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, nil); err != nil {
				_, _ = fmt.Fprintln(os.Stdout, n)
				select {}
			}
		}
	}
	if len(args) > 0 && args[0] == "eat" { // memory, until there is no more
		for eaten := bytes.Repeat([]byte{1}, 1<<20); ; {
			eaten = append(eaten, eaten...)
		}
	}
	if len(args) > 0 && args[0] == "cat" {
		for _, path := range args[1:] {
			b, err := os.ReadFile(path)
			_, _ = fmt.Fprintf(os.Stdout, "%s: %q %v\n", path, b, errors.Unwrap(err))
		}
		return 0
	}
	found := map[string]string{}
	for name, try := range attempts() {
		found[name] = errName(try())
	}
	for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"} {
		found[name] = statusField("self", name)
	}
	found["processes"] = fmt.Sprint(len(numbers("/proc")))
	found["descriptors"] = strings.Join(numbers("/proc/self/fd"), ",")
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		return 1
	}
	return 0
}

func errName(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "allowed"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	default:
		return err.Error()
	}
}

func statusField(pid, name string) string {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "absent"
}

func numbers(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") == "" {
			found = append(found, e.Name())
		}
	}
	if dir != "/proc/self/fd" {
		return found
	}
	// The list itself needed a descriptor; Go has its poller, and its own group's
	// CPU limit open.
	return slices.DeleteFunc(found, func(n string) bool {
		link, err := os.Readlink(dir + "/" + n)
		own := []string{"anon_inode:", "/proc/", "/sys/fs/cgroup/"}
		return err != nil || slices.ContainsFunc(own, func(p string) bool { return strings.HasPrefix(link, p) })
	})
}

// call makes a system call that the wrappers do not offer as raw as this.
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

func write(path string) func() error {
	return func() error { return os.WriteFile(path, []byte("x"), 0o600) }
}

func read(path string) func() error {
	return func() error {
		_, err := os.ReadFile(path)
		return err
	}
}

func socket(family, kind int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
}

// attempts are what a module tries, by name.
func attempts() map[string]func() error {
	str := func(s string) uintptr { return uintptr(unsafe.Pointer(&append([]byte(s), 0)[0])) }
	var buf [256]byte
	mem := uintptr(unsafe.Pointer(&buf))
	all := map[string]func() error{
		"mount":               func() error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") },
		"remount root":        func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "") },
		"umount":              func() error { return unix.Unmount("/tmp", unix.MNT_DETACH) },
		"fsopen":              call(unix.SYS_FSOPEN, str("tmpfs"), 0),
		"open_tree":           call(unix.SYS_OPEN_TREE, 0, str("/"), 1),
		"pivot_root":          func() error { return unix.PivotRoot("/tmp", "/tmp") },
		"chroot":              func() error { return unix.Chroot("/tmp") },
		"unshare user":        func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"unshare mount":       func() error { return unix.Unshare(unix.CLONE_NEWNS) },
		"unshare net":         func() error { return unix.Unshare(unix.CLONE_NEWNET) },
		"setns":               func() error { return unix.Setns(0, 0) },
		"clone user":          call(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0),
		"clone3":              call(unix.SYS_CLONE3, mem, 64),
		"mknod char device":   func() error { return unix.Mknod("/tmp/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
		"mknod block device":  func() error { return unix.Mknod("/tmp/disk", unix.S_IFBLK|0o666, int(unix.Mkdev(254, 0))) },
		"mkfifo":              func() error { return unix.Mkfifo("/tmp/fifo", 0o600) },
		"ptrace":              call(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1, 0, 0),
		"process_vm_readv":    call(unix.SYS_PROCESS_VM_READV, 1, mem, 1, mem, 1, 0),
		"kcmp":                call(unix.SYS_KCMP, 1, 1, 0, 0, 0),
		"pidfd_getfd":         call(unix.SYS_PIDFD_GETFD, 0, 0, 0),
		"bpf":                 call(unix.SYS_BPF, 0, mem, 8),
		"perf_event_open":     call(unix.SYS_PERF_EVENT_OPEN, mem, 0, 0, 0, 0),
		"keyctl":              call(unix.SYS_KEYCTL, 0, 0, 0),
		"add_key":             call(unix.SYS_ADD_KEY, str("user"), str("k"), mem, 1, 0),
		"request_key":         call(unix.SYS_REQUEST_KEY, str("user"), str("k"), 0, 0),
		"io_uring":            call(unix.SYS_IO_URING_SETUP, 4, mem),
		"userfaultfd":         call(unix.SYS_USERFAULTFD, 0),
		"init_module":         call(unix.SYS_INIT_MODULE, mem, 8, str("")),
		"finit_module":        call(unix.SYS_FINIT_MODULE, 0, str(""), 0),
		"delete_module":       call(unix.SYS_DELETE_MODULE, str("x"), 0),
		"kexec_load":          call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0),
		"reboot":              call(unix.SYS_REBOOT, 0xfee1dead, 672274793, 0, 0),
		"swapon":              call(unix.SYS_SWAPON, str("/tmp/x"), 0),
		"acct":                call(unix.SYS_ACCT, 0),
		"quotactl":            call(unix.SYS_QUOTACTL, 0, 0, 0, 0),
		"syslog":              call(unix.SYS_SYSLOG, 3, mem, 8),
		"settimeofday":        call(unix.SYS_SETTIMEOFDAY, mem, 0),
		"clock_settime":       call(unix.SYS_CLOCK_SETTIME, 0, mem),
		"adjtimex":            call(unix.SYS_ADJTIMEX, mem),
		"sethostname":         call(unix.SYS_SETHOSTNAME, mem, 1),
		"setdomainname":       call(unix.SYS_SETDOMAINNAME, mem, 1),
		"open_by_handle_at":   call(unix.SYS_OPEN_BY_HANDLE_AT, 0, mem, 0),
		"set_mempolicy":       call(unix.SYS_SET_MEMPOLICY, 0, 0, 0),
		"no randomized space": call(unix.SYS_PERSONALITY, 0x40000),
		"packet socket":       socket(unix.AF_PACKET, unix.SOCK_DGRAM),
		"raw socket":          func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); return err },
		"crypto socket":       socket(unix.AF_ALG, unix.SOCK_SEQPACKET),
		"vm socket":           socket(unix.AF_VSOCK, unix.SOCK_STREAM),
		"can socket":          socket(unix.AF_CAN, unix.SOCK_RAW),
		"tcp socket":          socket(unix.AF_INET, unix.SOCK_STREAM),
		"unix socket":         socket(unix.AF_UNIX, unix.SOCK_STREAM),
		"netlink socket":      socket(unix.AF_NETLINK, unix.SOCK_RAW),
		"become another user": func() error { return syscall.Setuid(1) },
		"raise a limit":       func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}) },
		"lower niceness":      func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) },
		"write /":             write("/x"),
		"write /etc/passwd":   write("/etc/passwd"),
		"write /usr":          write("/usr/x"),
		"write /app":          write("/app/x"),
		"write /sys":          write("/sys/x"),
		"write /proc/sys":     write("/proc/sys/kernel/core_pattern"),
		"write sysrq":         write("/proc/sysrq-trigger"),
		"write cgroup":        write(cgroupFile()),
		"write /tmp":          write("/tmp/x"),
		"write /run":          write("/run/x"),
		"write /dev/shm":      write("/dev/shm/x"),
		"write /dev/null":     write("/dev/null"),
		"read /dev/mem":       read("/dev/mem"),
		"read /dev/kmsg":      read("/dev/kmsg"),
		"read /etc/shadow":    read("/etc/shadow"),
		"read /proc/kcore":    func() error { return size("/proc/kcore") },
		"read host's secret":  read(os.Getenv("SECRET")),
		"read root of init":   read("/proc/1/root" + os.Getenv("SECRET")),
		"overwrite runtime":   overwriteRuntime,
	}
	if runtime.GOARCH == "amd64" {
		all["iopl"] = call(sysIopl, 3)
	}
	return all
}

const sysIopl = 172 // of x86-64

// cgroupFile would move this process out of its group.
func cgroupFile() string {
	for _, f := range []string{"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs"} {
		if exists(f) {
			return f
		}
	}
	return "/sys/fs/cgroup/absent"
}

// size fails for a file that is masked.
func size(path string) error {
	st, err := os.Stat(path)
	if err == nil && st.Mode()&os.ModeDevice != 0 {
		return errors.New("masked")
	}
	return err
}

// overwriteRuntime tries to write to the binary that made this sandbox, through
// a process of it that may still be around (CVE-2019-5736).
func overwriteRuntime() error {
	f, err := os.OpenFile("/proc/1/exe", os.O_WRONLY, 0)
	if err == nil {
		_ = f.Close()
	}
	return err
}
