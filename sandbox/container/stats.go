package container

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Stats tells what the sandbox uses.
func (i *Instance) Stats() (sandbox.Stats, error) {
	if i.isDestroyed() {
		return sandbox.Stats{}, i.err("stats", sandbox.ErrDestroyed)
	}
	s, err := i.group.Stats(&cgroups.StatsOptions{Controllers: cgroups.CPU | cgroups.Memory | cgroups.Pids | cgroups.IO})
	if err != nil {
		return sandbox.Stats{}, i.err("stats", err)
	}
	m := s.MemoryStats.Usage
	out := sandbox.Stats{
		Memory: m.Usage, MemoryPeak: m.MaxUsage, MemoryLimit: m.Limit,
		CPU:       time.Duration(s.CpuStats.CpuUsage.TotalUsage), // nanoseconds
		Throttled: time.Duration(s.CpuStats.ThrottlingData.ThrottledTime),
		Pids:      s.PidsStats.Current, PidsLimit: s.PidsStats.Limit,
		PidsRefused: event(filepath.Join(i.group.Path("pids"), "pids.events"), "max"),
		OOMKills:    i.oomKills(),
	}
	if out.MemoryLimit > unlimited {
		out.MemoryLimit = 0
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			out.Read += e.Value
		case "write":
			out.Written += e.Value
		}
	}
	group := i.pressureGroup()
	out.CPUPressure = pressure(filepath.Join(group, "cpu.pressure"))
	out.MemoryPressure = pressure(filepath.Join(group, "memory.pressure"))
	out.IOPressure = pressure(filepath.Join(group, "io.pressure"))
	return out, nil
}

// pressureGroup is the group in the version 2 hierarchy, which alone knows of
// pressure; it is there on a hybrid host too.
func (i *Instance) pressureGroup() string {
	if cgroups.IsCgroup2UnifiedMode() {
		return i.group.Path("")
	}
	return filepath.Join(cgroupRoot, "unified", i.r.cgroupOf(i.id))
}

// unlimited: no memory limit is a number close to the largest one, which differs
// between cgroup versions and page sizes.
const unlimited = 1 << 60

// oomKills is zero where the kernel does not count.
func (i *Instance) oomKills() uint64 {
	n, err := i.group.OOMKillCount()
	if err != nil {
		return 0
	}
	return n
}

// Refused tells what the sandbox's walls have stopped: two small files and a number,
// so that it can be asked often.
func (i *Instance) Refused() sandbox.Refusals {
	return sandbox.Refusals{Pids: event(filepath.Join(i.group.Path("pids"), "pids.events"), "max"), OOM: i.oomKills(), Calls: i.calls.Load()}
}

// event reads one counter of a file of "name number" lines; 0 when it is not
// there.
func event(path, name string) uint64 {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if number, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// pressure reads the share of the last ten seconds in which some process waited,
// in per cent (Documentation/accounting/psi.rst); nil when the kernel does not
// tell.
func pressure(path string) *float64 {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	_, rest, ok := strings.Cut(string(raw), "some avg10=")
	text, _, _ := strings.Cut(rest, " ")
	share, err := strconv.ParseFloat(text, 64)
	if !ok || err != nil {
		return nil
	}
	return &share
}
