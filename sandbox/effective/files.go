package effective

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The names of probes whose findings name places, which grants may name too.
const (
	probeNodes    = "use device nodes beyond the common ones"
	probeWritable = "write to other mounts than its own"
)

func files() []probe {
	return []probe{
		{"write to the root", create("/")},
		{"write to /usr", create("/usr")},
		{"write to /etc", create("/etc")},
		{"write to its image", create("/app")},
		{"write to /sys", openFor("/sys/kernel/uevent_helper", "/sys/power/state", "/sys/module/printk/parameters/time")},
		{"write kernel settings", openFor("/proc/sys/kernel/core_pattern")},
		{"press the system key", openFor("/proc/sysrq-trigger")},
		{"change its limits", openFor("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/cgroup.procs")},
		{"read the kernel's memory", readOf("/proc/kcore", "/dev/mem", "/dev/kmem")},
		{"read the kernel's messages", readOf("/dev/kmsg", "/proc/kmsg")},
		{"learn kernel addresses", kernelAddresses},
		{"read key listings", readOf("/proc/keys")},
		{"read firmware tables", list("/sys/firmware")},
		{"read the host's passwords", readOf("/etc/shadow")},
		{"reach the agent's control socket", openPath("/run/sandpiper/control.sock", "/var/run/sandpiper/control.sock")},
		{"read the agent's configuration", list("/etc/sandpiper")},
		{"read the agent's state", list("/var/lib/sandpiper")},
		{"reach a container engine", openPath("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/run/systemd/private", "/run/dbus/system_bus_socket")},
		{"make a device node", makeNode("node", unix.S_IFCHR, 1, 3)},
		{"make a disk node", makeNode("disk", unix.S_IFBLK, 254, 0)},
		{probeNodes, otherNodes},
		{probeWritable, writableMounts},
		{"run set-user-id files", setuidMounts},
		{"write to /tmp", create("/tmp")},
		{"write to /dev/shm", create("/dev/shm")},
	}
}

// create makes a file in a directory and removes it.
func create(dir string) func() error {
	return func() error {
		path := filepath.Join(dir, ".sandpiper-probe-"+strconv.Itoa(os.Getpid()))
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		return errors.Join(f.Close(), os.Remove(path))
	}
}

// makeNode makes a device node and removes it.
func makeNode(name string, kind, major, minor uint32) func() error {
	return func() error {
		path := scratchFile(name)
		if err := unix.Mknod(path, kind|0o600, int(unix.Mkdev(major, minor))); err != nil {
			return err
		}
		_ = os.Remove(path) // that it was made is what counts
		return nil
	}
}

// scratchFile is a name that nothing has.
func scratchFile(name string) string {
	path := filepath.Join(os.TempDir(), ".sandpiper-probe-"+strconv.Itoa(os.Getpid())+"-"+name)
	_ = os.Remove(path) // made by the probe before, where that is permitted
	return path
}

// first tries paths until one works; what is refused elsewhere does not matter.
func first(paths []string, try func(path string) error) error {
	var last error = syscall.ENOENT
	for _, p := range paths {
		err := try(p)
		if err == nil {
			return found(p)
		}
		if !errors.Is(err, syscall.ENOENT) {
			last = err
		}
	}
	return last
}

func openFor(paths ...string) func() error {
	return func() error {
		return first(paths, func(p string) error {
			fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		})
	}
}

// openPath tells whether a name is there at all.
func openPath(paths ...string) func() error {
	return func() error {
		return first(paths, func(p string) error {
			_, err := os.Lstat(p)
			return err
		})
	}
}

// readOf reads a byte. A file that is masked by the null device or an empty file
// has none.
func readOf(paths ...string) func() error {
	return func() error {
		return first(paths, func(p string) error {
			fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			var b [64]byte
			n, err := unix.Read(fd, b[:])
			switch {
			case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINVAL): // it is open, and has nothing now
				return nil
			case err == nil && n == 0:
				return syscall.ENOENT
			}
			return err
		})
	}
}

// list finds names in a directory. A masked one has none.
func list(dir string) func() error {
	return func() error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return errNone
		}
		return found(strconv.Itoa(len(entries)) + " names")
	}
}

// kernelAddresses are zeros for those who may not know them.
func kernelAddresses() error {
	raw, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		if address, _, ok := strings.Cut(line, " "); ok && strings.Trim(address, "0") != "" {
			return found("/proc/kallsyms has addresses")
		}
	}
	return errNone
}

// commonNodes are what every sandbox has in /dev.
var commonNodes = []string{"console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"}

// otherNodes names the device nodes in /dev that it can open.
func otherNodes() error {
	var names []string
	err := filepath.WalkDir("/dev", func(path string, e os.DirEntry, err error) error {
		if err != nil || path == "/dev/pts" {
			return skip(e)
		}
		if e.Type()&os.ModeDevice == 0 || slices.Contains(commonNodes, strings.TrimPrefix(path, "/dev/")) {
			return nil
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			if fd, err = unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0); err != nil {
				return nil //nolint:nilerr // neither way: no finding
			}
		}
		if err == nil {
			_ = unix.Close(fd)
		}
		names = append(names, path) // also when nothing is behind it now
		return nil
	})
	if err != nil {
		return err
	}
	return listed(names)
}

func skip(e os.DirEntry) error {
	if e != nil && e.IsDir() {
		return filepath.SkipDir
	}
	return nil
}

// maxListed keeps a finding short.
const maxListed = 40

func listed(names []string) error {
	if len(names) == 0 {
		return errNone
	}
	if len(names) > maxListed {
		names = append(names[:maxListed:maxListed], fmt.Sprintf("and-%d-more", len(names)-maxListed))
	}
	return found(strings.Join(names, " "))
}

// ownMounts are writable in every sandbox, and gone with it.
var ownMounts = []string{"/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc", "/tmp", "/run"}

// writableMounts names the mounts that are not read-only.
func writableMounts() error {
	var names []string
	err := eachMount(func(target string, options []string) {
		if slices.Contains(options, "rw") && !slices.Contains(ownMounts, target) && !nodeBind(target) {
			names = append(names, target)
		}
	})
	if err != nil {
		return err
	}
	return listed(names)
}

// nodeBind tells a bound device node, which is no place to write to.
func nodeBind(target string) bool {
	st, err := os.Lstat(target)
	return err == nil && st.Mode()&os.ModeDevice != 0
}

// setuidMounts names the mounts on which set-user-id works, unless nothing can
// gain by it.
func setuidMounts() error {
	if statusField("NoNewPrivs") == "1" {
		return errNone
	}
	var names []string
	err := eachMount(func(target string, options []string) {
		if !slices.Contains(options, "nosuid") {
			names = append(names, target)
		}
	})
	if err != nil {
		return err
	}
	return listed(names)
}

func eachMount(f func(target string, options []string)) error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 5 {
			f(fields[4], strings.Split(fields[5], ","))
		}
	}
	return nil
}
