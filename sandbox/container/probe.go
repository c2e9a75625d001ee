package container

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Probe tells what this kernel offers sandboxes, and in one line each what is missing and what to do. It needs no [Runtime] and changes nothing.
func Probe() sandbox.Features { return probe() }

// probe asks the kernel, and writes a line for the operator about each thing
// that is missing.
func probe() sandbox.Features {
	have := controllers()
	f := sandbox.Features{
		Cgroup:        cgroupVersion(have),
		Memory:        have["memory"],
		Swap:          have["memory"] && countsSwap(),
		Pids:          have["pids"],
		CPU:           have["cpu"],
		IO:            throttles(have),
		UserNamespace: exists("/proc/self/ns/user"),
		Seccomp:       seccomp.Enabled && exists("/proc/sys/kernel/seccomp/actions_avail"),
		Overlay:       hasFilesystem("overlay"),
		ExitInfo:      hasExitInfo(),
		PivotRoot:     !onInitramfs(),
	}
	f.Degraded = degraded(f)
	return f
}

func degraded(f sandbox.Features) []string {
	var lines []string
	add := func(missing bool, line string) {
		if missing {
			lines = append(lines, line)
		}
	}
	add(!f.UserNamespace, "no user namespaces: no module can run; build the kernel with CONFIG_USER_NS")
	add(f.Cgroup == "", "no cgroups: no limit of a module is kept; build the kernel with CONFIG_CGROUPS and mount cgroup2 on "+cgroupRoot)
	if f.Cgroup != "" {
		add(!f.Memory, "no memory controller: limits.memory is not kept; remove cgroup_disable=memory from, or add cgroup_enable=memory to, the kernel command line, or build with CONFIG_MEMCG")
		add(f.Memory && !f.Swap, "swap is not counted: limits.swap is not kept; on cgroup v1 add swapaccount=1 to the kernel command line")
		add(!f.Pids, "no pids controller: processes are counted per user instead; build the kernel with CONFIG_CGROUP_PIDS")
		add(!f.CPU, "no cpu controller: limits.cpu is not kept; build the kernel with CONFIG_CFS_BANDWIDTH")
		add(throttleKills(), "a kernel of 32 bits: limits.io is not kept, such a limit can stop the kernel (block/blk-throttle.c); run a kernel of 64 bits")
		add(!f.IO && !throttleKills(), "no limit of disk bandwidth: limits.io is not kept; build the kernel with CONFIG_BLK_CGROUP and CONFIG_BLK_DEV_THROTTLING")
		add(f.IO && f.Cgroup != "v2", "disk bandwidth by cgroup "+f.Cgroup+": limits.io slows reads and direct writes, and not what the kernel writes for a module later; boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1, or cgroup_no_v1=all and cgroup2 on "+cgroupRoot+")")
	}
	add(!f.Seccomp && seccomp.Enabled, "no seccomp: modules may use every system call; build the kernel with CONFIG_SECCOMP_FILTER")
	add(!f.Seccomp && !seccomp.Enabled, "no seccomp: this binary was built without it; build it with the tag seccomp")
	add(!f.Overlay, "no overlayfs: images must bring every mount point, and starts are slower; build the kernel with CONFIG_OVERLAY_FS")
	add(!mountSetattr(), "no mount_setattr (Linux 5.12): mounts below a read-only bind are not made read-only, starts are slower, the memory floor is 8 MiB, and files of root in images belong to nobody")
	add(!hasLandlock(), "no Landlock (Linux 5.19, and landlock in lsm=): mounts alone keep a module's writes in their place")
	return lines
}

// hasLandlock tells whether the kernel has version 2 of it: before, no file could
// change its directory.
func hasLandlock() bool {
	const version = 1
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	return errno == 0 && n >= 2
}

func cgroupVersion(have map[string]bool) string {
	switch {
	case cgroups.IsCgroup2UnifiedMode():
		return "v2"
	case len(have) == 0:
		return ""
	case cgroups.IsCgroup2HybridMode():
		return "hybrid"
	default:
		return "v1"
	}
}

// countsSwap tells whether a limit of memory and swap can be set.
func countsSwap() bool {
	if !cgroups.IsCgroup2UnifiedMode() {
		for _, h := range hierarchies() {
			if exists(filepath.Join(h, "memory.memsw.limit_in_bytes")) {
				return true
			}
		}
		return false
	}
	// The root group has no limits to look at: ask the first group below it.
	found, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "memory.swap.max"))
	if err == nil && len(found) > 0 {
		return true
	}
	return exists("/proc/swaps")
}

// hasFilesystem tells whether the kernel can mount it, now or after loading a
// module, which mount does by itself.
func hasFilesystem(name string) bool {
	fd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
	if err == nil {
		_ = unix.Close(fd)
		return true
	}
	b, err := os.ReadFile("/proc/filesystems")
	return err == nil && strings.Contains(string(b), "\t"+name+"\n")
}

// hasExitInfo asks about this process, which has not ended: an older kernel does
// not know the question.
func hasExitInfo() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(fd, &info); err != nil {
		return false
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return false
	}
	return atLeast(unix.ByteSliceToString(uts.Release[:]), 6, 15)
}

// atLeast compares a kernel release, such as "6.1.0-18-arm64".
func atLeast(release string, major, minor int) bool {
	var have [2]int
	for n := range have {
		digits := strings.IndexFunc(release, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 0 {
			digits = len(release)
		}
		for _, d := range release[:digits] {
			have[n] = have[n]*10 + int(d-'0')
		}
		release = strings.TrimPrefix(release[digits:], ".")
	}
	return have[0] > major || have[0] == major && have[1] >= minor
}

// onInitramfs tells whether "/" is the kernel's first root, which cannot be
// pivoted away from.
func onInitramfs() bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	initramfs := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, rest, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if ok && len(fields) > 4 && fields[4] == "/" { // a later one lies on top
			initramfs = strings.HasPrefix(rest, "rootfs ")
		}
	}
	return initramfs
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
