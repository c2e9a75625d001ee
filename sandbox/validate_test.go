package sandbox_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

func good() sandbox.Spec {
	return sandbox.Spec{
		ID: "filter", Args: []string{"/bin/true"}, IDBase: 1 << 20,
		Root: sandbox.Root{Image: "/var/lib/sandpiper/images/x"},
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*sandbox.Spec)
		want   string // empty: accepted
	}{
		"the smallest spec is accepted": {func(*sandbox.Spec) {}, ""},
		"everything set is accepted": {func(s *sandbox.Spec) {
			s.Env, s.Cwd, s.User, s.Hostname = []string{"A=b", "C="}, "/app", "app:dialout", "filter-1"
			s.Mounts = []sandbox.Mount{{Source: "/var/d", Target: "/data", Writable: true, Own: true}, {Source: "/run/s", Target: "/run/s"}}
			s.Hosts = []sandbox.HostEntry{{Addr: netip.MustParseAddr("127.0.0.1"), Names: []string{"gateway"}}}
			s.Limits = sandbox.Limits{Memory: sandbox.MinMemory, Swap: 1, CPU: 10, Pids: 1, Files: 8, Tmp: 4096}
			s.Devices = []sandbox.Device{{Path: "/dev/ttyUSB0", Target: "/dev/gps", Access: "r"}}
		}, ""},
		"no id":                {func(s *sandbox.Spec) { s.ID = "" }, "sandbox: the id is empty; give the instance a name"},
		"a path as id":         {func(s *sandbox.Spec) { s.ID = "../x" }, `sandbox "../x": the id may hold letters, digits and _ + . - and starts with a letter or a digit`},
		"a long id":            {func(s *sandbox.Spec) { s.ID = strings.Repeat("a", 65) }, `sandbox "aaaaaaaaaaaaaaaaaaaa"…: the id has 65 bytes, at most 64 are allowed`},
		"nothing to run":       {func(s *sandbox.Spec) { s.Args = nil }, "sandbox filter: args: there is no program to run; set args or use an image that names one"},
		"env without a value":  {func(s *sandbox.Spec) { s.Env = []string{"PATH"} }, `sandbox filter: env: "PATH" is not of the form NAME=value`},
		"a relative cwd":       {func(s *sandbox.Spec) { s.Cwd = "app" }, `sandbox filter: cwd: "app" is not a clean absolute path`},
		"the host's own users": {func(s *sandbox.Spec) { s.IDBase = 0 }, "sandbox filter: id base: 0 is below 65536, where the host's own accounts are"},
		"a range past the end": {func(s *sandbox.Spec) { s.IDBase = 1<<32 - 100 }, "sandbox filter: id base: 4294967196 leaves no room for 65536 ids"},
		"a uid it has not":     {func(s *sandbox.Spec) { s.User = "0:70000" }, `sandbox filter: user: "0:70000" is not between 0 and 65535, the ids a sandbox has`},
		"the host as image":    {func(s *sandbox.Spec) { s.Root.Image = "/" }, `sandbox filter: root: image directory "/" is not a clean absolute path below /`},
		"a climbing target":    {func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: "/d", Target: "/a/../proc"}} }, `sandbox filter: mount of /d: target "/a/../proc" is not a clean absolute path below /`},
		"a mount over /proc":   {func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: "/d", Target: "/proc/self"}} }, "sandbox filter: mount of /d: target /proc/self is inside /proc, which the sandbox makes itself; choose another target"},
		"one target twice": {func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Source: "/d", Target: "/x"}, {Source: "/e", Target: "/x"}}
		}, "sandbox filter: mount of /e: target /x is used twice"},
		"owned but read-only": {func(s *sandbox.Spec) { s.Mounts = []sandbox.Mount{{Source: "/d", Target: "/x", Own: true}} }, "sandbox filter: mount of /d: it is given to the module but is not writable"},
		"memory below the floor": {
			func(s *sandbox.Spec) { s.Limits.Memory = 512 << 10 },
			"sandbox filter: limits.memory: 524288 bytes is below the floor of 1048576 (1 MiB): the sandbox starts inside its own limit and would die there; raise it",
		},
		"swap alone":      {func(s *sandbox.Spec) { s.Limits.Swap = 1 }, "sandbox filter: limits.swap: it counts on top of limits.memory, which is not set; set both"},
		"too little cpu":  {func(s *sandbox.Spec) { s.Limits.CPU = 9 }, "sandbox filter: limits.cpu: 9 thousandths of a core is below the floor of 10, the kernel's least share; raise it"},
		"a foreign node":  {func(s *sandbox.Spec) { s.Devices = []sandbox.Device{{Path: "/etc/passwd"}} }, `sandbox filter: device: "/etc/passwd" is not a path below /dev`},
		"device creation": {func(s *sandbox.Spec) { s.Devices = []sandbox.Device{{Path: "/dev/sda", Access: "rwm"}} }, `sandbox filter: device /dev/sda: access "rwm" is not made of r and w`},
		"a line in hosts": {func(s *sandbox.Spec) {
			s.Hosts = []sandbox.HostEntry{{Addr: netip.MustParseAddr("::1"), Names: []string{"a\n1.2.3.4 b"}}}
		}, `sandbox filter: hosts: "a\n1.2.3.4 b" is no host name`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := good()
			tt.change(&s)
			got := ""
			if err := s.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestParseSignal(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "SIGTERM", "SIGTERM": "SIGTERM", "int": "SIGINT", "9": "SIGKILL", "37": "signal 37",
		"0": "!", "65": "!", "SIGNOT": "!", "-1": "!",
	} {
		sig, err := sandbox.ParseSignal(in)
		got := sandbox.SignalName(sig)
		if err != nil {
			got = "!"
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
