package sandbox

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Validate refuses what no runtime may be asked to do. The error is one line:
// which instance, which member, what is wrong, what to do.
func (s Spec) Validate() error {
	if err := validID(s.ID); err != nil {
		return err
	}
	for _, check := range []func() error{
		s.program, s.identity, s.root, s.mounts, s.hosts, s.limits, s.devices, s.permissions,
	} {
		if err := check(); err != nil {
			return fmt.Errorf("sandbox %s: %w", s.ID, err)
		}
	}
	return nil
}

// maxID keeps every path and cgroup name made of an ID within the kernel's
// limits.
const maxID = 64

func validID(id string) error {
	if id == "" {
		return fmt.Errorf("sandbox: the id is empty; give the instance a name")
	}
	if len(id) > maxID {
		return fmt.Errorf("sandbox %.20q…: the id has %d bytes, at most %d are allowed", id, len(id), maxID)
	}
	for i, r := range []byte(id) {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_+.-", rune(r))) {
			return fmt.Errorf("sandbox %q: the id may hold letters, digits and _ + . - and starts with a letter or a digit", id)
		}
	}
	return nil
}

func (s Spec) program() error {
	if len(s.Args) == 0 || s.Args[0] == "" {
		return fmt.Errorf("args: there is no program to run; set args or use an image that names one")
	}
	for _, a := range s.Args {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("args: %q holds a NUL byte", a)
		}
	}
	for _, e := range s.Env {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" || strings.ContainsRune(e, 0) {
			return fmt.Errorf("env: %q is not of the form NAME=value", name)
		}
	}
	if s.Cwd != "" && !cleanAbs(s.Cwd) {
		return fmt.Errorf("cwd: %q is not a clean absolute path", s.Cwd)
	}
	if s.LogPath != "" && !cleanAbs(s.LogPath) {
		return fmt.Errorf("log path: %q is not a clean absolute path", s.LogPath)
	}
	if s.ErrPath != "" && (!cleanAbs(s.ErrPath) || s.LogPath == "") {
		return fmt.Errorf("error path: %q is not a clean absolute path beside a log path", s.ErrPath)
	}
	if s.StopSignal < 0 || s.StopSignal > 64 {
		return fmt.Errorf("stop signal: %d is not between 1 and 64", int(s.StopSignal))
	}
	return nil
}

func (s Spec) identity() error {
	if s.IDBase < MinIDBase {
		return fmt.Errorf("id base: %d is below %d, where the host's own accounts are", s.IDBase, MinIDBase)
	}
	if s.IDBase > 1<<32-1-IDCount {
		return fmt.Errorf("id base: %d leaves no room for %d ids", s.IDBase, IDCount)
	}
	for part := range strings.SplitSeq(s.User, ":") {
		if n, err := strconv.ParseInt(part, 10, 64); err == nil && (n < 0 || n >= IDCount) {
			return fmt.Errorf("user: %q is not between 0 and %d, the ids a sandbox has", s.User, IDCount-1)
		}
	}
	if strings.Count(s.User, ":") > 1 || strings.ContainsAny(s.User, " \n\x00") {
		return fmt.Errorf("user: %q is not of the form user or user:group", s.User)
	}
	if len(s.Hostname) > 63 || strings.ContainsAny(s.Hostname, " \t\n\x00/") {
		return fmt.Errorf("hostname: %q is no host name of at most 63 bytes", s.Hostname)
	}
	return nil
}

func (s Spec) root() error {
	if s.Root.Kind > HostView {
		return fmt.Errorf("root: kind %d is unknown", s.Root.Kind)
	}
	if !cleanAbs(s.Root.Image) || s.Root.Image == "/" {
		return fmt.Errorf("root: image directory %q is not a clean absolute path below /", s.Root.Image)
	}
	if s.Root.Writable < 0 || s.Root.Writable > 0 && s.Root.Kind != Image {
		return fmt.Errorf("root: %d bytes of changes; only an image's root can be writable, and by a number of bytes", s.Root.Writable)
	}
	if s.Network > Bridge {
		return fmt.Errorf("network: kind %d is unknown", s.Network)
	}
	return nil
}

// ours are the places the runtime itself mounts on.
var ours = []string{"/proc", "/sys", "/dev"}

func (s Spec) mounts() error {
	seen := map[string]bool{}
	for _, m := range s.Mounts {
		switch {
		case !cleanAbs(m.Source) || m.Source == "/":
			return fmt.Errorf("mount: source %q is not a clean absolute path below /", m.Source)
		case !cleanAbs(m.Target) || m.Target == "/":
			return fmt.Errorf("mount of %s: target %q is not a clean absolute path below /", m.Source, m.Target)
		case seen[m.Target]:
			return fmt.Errorf("mount of %s: target %s is used twice", m.Source, m.Target)
		case m.Own && !m.Writable:
			return fmt.Errorf("mount of %s: it is given to the module but is not writable", m.Source)
		}
		for _, o := range ours {
			if within(m.Target, o) {
				return fmt.Errorf("mount of %s: target %s is inside %s, which the sandbox makes itself; choose another target", m.Source, m.Target, o)
			}
		}
		seen[m.Target] = true
	}
	return nil
}

func (s Spec) hosts() error {
	for _, h := range s.Hosts {
		if !h.Addr.IsValid() || len(h.Names) == 0 {
			return fmt.Errorf("hosts: entry %v %q needs an address and a name", h.Addr, h.Names)
		}
		for _, n := range h.Names {
			if n == "" || strings.ContainsAny(n, " \t\n\x00#") {
				return fmt.Errorf("hosts: %q is no host name", n)
			}
		}
	}
	return nil
}

func (s Spec) limits() error {
	l := s.Limits
	switch {
	case l.Memory < 0 || l.Swap < 0 || l.CPU < 0 || l.Pids < 0 || l.Tmp < 0 || l.IO < 0:
		return fmt.Errorf("limits: a limit is negative; leave it out for the default")
	case l.Memory > 0 && l.Memory < MinMemory:
		return fmt.Errorf("limits.memory: %d bytes is below the floor of %d (1 MiB): the sandbox starts inside its own limit and would die there; raise it", l.Memory, MinMemory)
	case l.Swap > 0 && l.Memory == 0:
		return fmt.Errorf("limits.swap: it counts on top of limits.memory, which is not set; set both")
	case l.CPU > 0 && l.CPU < 10:
		return fmt.Errorf("limits.cpu: %d thousandths of a core is below the floor of 10, the kernel's least share; raise it", l.CPU)
	}
	return nil
}

func (s Spec) devices() error {
	for _, d := range s.Devices {
		switch {
		case !cleanAbs(d.Path) || !within(d.Path, "/dev") || d.Path == "/dev":
			return fmt.Errorf("device: %q is not a path below /dev", d.Path)
		case d.Target != "" && (!cleanAbs(d.Target) || !within(d.Target, "/dev") || d.Target == "/dev"):
			return fmt.Errorf("device %s: target %q is not a path below /dev", d.Path, d.Target)
		case strings.Trim(d.Access, "rw") != "":
			return fmt.Errorf("device %s: access %q is not made of r and w", d.Path, d.Access)
		}
	}
	return nil
}

func (s Spec) permissions() error {
	for _, p := range s.Permissions {
		if p != Trace && p != IOUring {
			return fmt.Errorf("permissions: %q is unknown; there are %s and %s", p, Trace, IOUring)
		}
	}
	return nil
}

func cleanAbs(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}
