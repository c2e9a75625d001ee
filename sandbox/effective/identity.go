package effective

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func identity() []probe {
	return []probe{
		{"hold a capability", func() error { return notZero("CapEff", "CapPrm", "CapInh", "CapAmb") }},
		{"gain a capability", func() error { return notZero("CapBnd") }},
		{"gain privileges by a program", func() error { return isZero("NoNewPrivs") }},
		{"call the kernel unfiltered", func() error { return isZero("Seccomp") }},
		{"be root of the host", hostRoot},
		{"share its ids with another sandbox", sharedIDs},
		{"use descriptors it was not given", leaked},
		{"use memory without bound", unbounded("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")},
		{"make processes without bound", unbounded("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max")},
		{"dump its memory to a file", func() error {
			var l unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
				return err
			}
			if l.Max == 0 {
				return errNone
			}
			return nil
		}},
	}
}

func statusField(name string) string {
	raw, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func notZero(names ...string) error {
	for _, name := range names {
		if v := statusField(name); strings.Trim(v, "0") != "" {
			return found(name + " " + v)
		}
	}
	return errNone
}

// isZero also finds a field that is not there: a kernel without it has no wall.
func isZero(name string) error {
	if v := statusField(name); v != "" && v != "0" {
		return errNone
	}
	return found(name + " 0")
}

// hostRoot looks whether user 0 of the host is one of the sandbox's.
func hostRoot() error {
	raw, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == "0" {
			return found("uid_map " + strings.Join(f, " "))
		}
	}
	return errNone
}

// sharedIDs: a sandbox has 65536 ids that begin at a multiple of that; another
// map is shared with somebody.
func sharedIDs() error {
	raw, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	f := strings.Fields(string(raw))
	if len(f) != 3 {
		return found("several maps")
	}
	base, err := strconv.ParseUint(f[1], 10, 32)
	if err != nil || f[2] != "65536" || base == 0 || base%65536 != 0 {
		return found("uid_map " + strings.Join(f, " "))
	}
	return errNone
}

// leaked looks for descriptors beyond the three streams that are not this
// process's own.
func leaked() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n < 3 {
			continue
		}
		to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		own := strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "/proc/") || strings.HasPrefix(to, "/sys/fs/cgroup/")
		if err == nil && !own {
			names = append(names, e.Name()+"="+to)
		}
	}
	return listed(names)
}

// unbounded reads a limit where the sandbox shows its own groups. One that shows
// none keeps nothing, as far as can be seen.
func unbounded(paths ...string) func() error {
	return func() error {
		for _, p := range paths {
			raw, err := os.ReadFile(p)
			if err != nil {
				continue
			}
			text := strings.TrimSpace(string(raw))
			n, err := strconv.ParseUint(text, 10, 64)
			if text == "max" || err == nil && n > 1<<60 {
				return found(p + " " + text)
			}
			return errNone
		}
		return found("no limit is to be seen")
	}
}
