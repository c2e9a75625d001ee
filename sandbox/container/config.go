package container

import (
	"fmt"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// config puts a Spec into libcontainer's words.
func (r *Runtime) config(s sandbox.Spec, root rootfs, g grants) *configs.Config {
	ids := []configs.IDMap{{ContainerID: 0, HostID: int64(s.IDBase), Size: sandbox.IDCount}}
	oom := oomScore
	c := &configs.Config{
		Version:     "1.2.0", // of the OCI specification
		Rootfs:      root.path,
		Readonlyfs:  s.Root.Writable == 0,
		NoPivotRoot: !r.features.PivotRoot,
		Hostname:    hostname(s),
		Namespaces: configs.Namespaces{
			{Type: configs.NEWUSER}, {Type: configs.NEWNS}, {Type: configs.NEWPID},
			{Type: configs.NEWIPC}, {Type: configs.NEWUTS},
		},
		UIDMappings: ids, GIDMappings: ids,
		Capabilities:    &configs.Capabilities{}, // none
		NoNewPrivileges: true,
		MaskPaths:       maskPaths,
		ReadonlyPaths:   readonlyPaths,
		Rlimits:         rlimits(s.Limits, r.features),
		OomScoreAdj:     &oom,
		Mounts:          kernelMounts(s, r.features.Cgroup != ""),
		Devices:         commonNodes(),
		Cgroups:         r.cgroup(s, g),
	}
	if r.features.Cgroup != "" {
		c.Namespaces.Add(configs.NEWCGROUP, "")
	}
	if s.Network != sandbox.Host {
		c.Namespaces.Add(configs.NEWNET, "")
		c.Networks = []*configs.Network{{Type: "loopback"}}
	} else {
		c.MaskPaths = append(append([]string(nil), maskPaths...), "/sys/fs/cgroup")
	}
	if r.features.Seccomp {
		c.Seccomp = seccompFilter(s.Permissions)
	}
	c.Mounts = append(append(c.Mounts, root.mounts...), g.mounts...)
	return c
}

// cgroup is the group of one sandbox.
func (r *Runtime) cgroup(s sandbox.Spec, g grants) *cgroups.Cgroup {
	c := &cgroups.Cgroup{Path: r.cgroupOf(s.ID), Resources: resources(s.Limits, r.features)}
	c.Devices = append(commonRules(), g.rules...)
	if r.features.IO && s.Limits.IO > 0 {
		throttle(c.Resources, s)
	}
	return c
}

// oomScore makes the kernel that runs out of memory take a module before the
// agent.
const oomScore = 300

// maskPaths tell about the host, or reach into it. What a kernel lacks is
// skipped.
var maskPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/bootconfig", "/proc/cmdline", "/proc/config.gz", "/proc/interrupts",
	"/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags",
	"/proc/latency_stats", "/proc/modules", "/proc/mtd", "/proc/partitions", "/proc/sched_debug", "/proc/scsi",
	"/proc/slabinfo", "/proc/sysvipc", "/proc/timer_list", "/proc/timer_stats", "/proc/vmallocinfo",
	"/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel", "/sys/module", "/sys/fs/bpf", "/sys/fs/pstore", "/sys/power",
}

// readonlyPaths of /proc are writable for root without capabilities otherwise.
var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/proc/tty"}

// kernelMounts are the file systems of the kernel's own.
func kernelMounts(s sandbox.Spec, hasCgroup bool) []*configs.Mount {
	const none = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	size := s.Limits.Tmp
	if size == 0 {
		size = sandbox.DefaultTmp
	}
	tmp := fmt.Sprintf("mode=1777,size=%d", size)
	mounts := []*configs.Mount{
		{Source: "proc", Destination: "/proc", Device: "proc", Flags: none},
		{Source: "tmpfs", Destination: "/dev", Device: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "mode=755,size=64k"},
		{Source: "devpts", Destination: "/dev/pts", Device: "devpts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{Source: "shm", Destination: "/dev/shm", Device: "tmpfs", Flags: none, Data: tmp},
		{Source: "mqueue", Destination: "/dev/mqueue", Device: "mqueue", Flags: none},
		{Source: "tmpfs", Destination: "/tmp", Device: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: tmp},
		{Source: "tmpfs", Destination: "/run", Device: "tmpfs", Flags: none, Data: "mode=755,size=1m"},
	}
	if s.Network == sandbox.Host {
		// sysfs belongs to the owner of the network namespace, here the host's: it
		// can be shown, not mounted.
		sys := bind("/sys", "/sys", readOnly)
		sys.Flags |= none
		return append(mounts, sys)
	}
	mounts = append(mounts, &configs.Mount{Source: "sysfs", Destination: "/sys", Device: "sysfs", Flags: none | unix.MS_RDONLY})
	if hasCgroup {
		// Read-only, and only its own: language runtimes size their heaps by it.
		mounts = append(mounts, &configs.Mount{Source: "cgroup", Destination: "/sys/fs/cgroup", Device: "cgroup", Flags: none | unix.MS_RDONLY})
	}
	return mounts
}

// cpuPeriod is the kernel's default, in microseconds.
const cpuPeriod = 100_000

// resources are the limits that this kernel can keep; Probe reports the others.
func resources(l sandbox.Limits, f sandbox.Features) *cgroups.Resources {
	r := &cgroups.Resources{}
	if f.Memory && l.Memory > 0 {
		r.Memory = l.Memory
		if f.Swap {
			r.MemorySwap = l.Memory + l.Swap
		}
	}
	if f.Pids {
		n := pids(l)
		r.PidsLimit = &n
	}
	if f.CPU && l.CPU > 0 {
		r.CpuPeriod = cpuPeriod
		r.CpuQuota = l.CPU * cpuPeriod / 1000
	}
	return r
}

func pids(l sandbox.Limits) int64 {
	if l.Pids > 0 {
		return l.Pids
	}
	return sandbox.DefaultPids
}

// rlimits are bounded by what the agent may have: only CAP_SYS_RESOURCE could go
// beyond.
func rlimits(l sandbox.Limits, f sandbox.Features) []configs.Rlimit {
	files := l.Files
	if files == 0 {
		files = sandbox.DefaultFiles
	}
	limits := []configs.Rlimit{
		clamp(unix.RLIMIT_NOFILE, files),
		clamp(unix.RLIMIT_CORE, 0), // a core file would hold the module's keys
		clamp(unix.RLIMIT_MEMLOCK, 64<<10),
	}
	if !f.Pids { // second best: counted per user, and its users are its own
		limits = append(limits, clamp(unix.RLIMIT_NPROC, uint64(pids(l))))
	}
	return limits
}

func clamp(kind int, want uint64) configs.Rlimit {
	var have unix.Rlimit
	if err := unix.Getrlimit(kind, &have); err == nil {
		want = min(want, have.Max)
	}
	return configs.Rlimit{Type: kind, Soft: want, Hard: want}
}
