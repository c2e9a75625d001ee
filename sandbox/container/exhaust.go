package container

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// memoryPlaces are where a module may write to memory of its own. Their mount points
// are in a read-only root, so that no link can stand there.
var memoryPlaces = []string{"/tmp", "/dev/shm", "/run"}

// maxCounted bounds the processes of a sandbox whose files are counted at once.
const maxCounted = 256

// Exhausted looks at the module's file systems in memory and at the descriptors of
// its processes.
func (i *Instance) Exhausted() sandbox.Exhaustion {
	var e sandbox.Exhaustion
	if i.over() {
		return e
	}
	root := filepath.Join("/proc", strconv.Itoa(i.pid), "root")
	for _, place := range memoryPlaces {
		var st unix.Statfs_t
		// Less than a hundredth is left: the last page is not always to be had.
		if err := unix.Statfs(root+place, &st); err == nil && st.Type == unix.TMPFS_MAGIC && st.Blocks > 0 && st.Bavail <= st.Blocks/100 {
			e.Full = append(e.Full, place)
		}
	}
	pids, err := cgroups.GetAllPids(i.group.Path(i.anyController()))
	if err != nil {
		return e
	}
	for _, pid := range pids[:min(len(pids), maxCounted)] {
		if manyFiles(pid) {
			e.Files = true
			break
		}
	}
	return e
}

// anyController is one whose group every process of the sandbox is in.
func (i *Instance) anyController() string {
	if cgroups.IsCgroup2UnifiedMode() {
		return ""
	}
	return "devices"
}

// manyFiles tells whether a process has 19 of 20 descriptors in use. The size of its
// directory is their number since Linux 6.2; before, they are counted.
func manyFiles(pid int) bool {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil || limit.Cur == 0 {
		return false
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	st, err := os.Stat(dir)
	if err != nil {
		return false
	}
	open := uint64(st.Size())
	if open == 0 {
		names, err := os.ReadDir(dir)
		if err != nil {
			return false
		}
		open = uint64(len(names))
	}
	return open >= limit.Cur-limit.Cur/20
}
