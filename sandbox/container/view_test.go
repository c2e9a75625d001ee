package container_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// TestAModulesOwnView runs a hostile program in a sandbox and compares what it
// met with what it may.
func TestAModulesOwnView(t *testing.T) {
	t.Parallel()
	for name, set := range starts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRuntime(t)
			set(r)
			ownView(t, r)
		})
	}
}

func ownView(t *testing.T, r *container.Runtime) {
	t.Helper()
	t.Log("real sandboxes: " + announce(r))
	if !r.Probe().Seccomp {
		t.Skip("SKIPPED FOR LACK OF SECCOMP: run with -tags seccomp on a kernel that has it; isolation was not tested")
	}
	secret := filepath.Join(openDir(t), "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := spec(t, "view")
	s.Args = []string{probeIn(t, &s), "as-probe"}
	s.Env = []string{"SECRET=" + secret}
	i := start(t, r, s)
	var got map[string]string
	if err := json.Unmarshal([]byte(i.line()), &got); err != nil {
		t.Fatal(err)
	}
	i.wait()

	want := map[string]string{
		"NoNewPrivs": "1", "Seccomp": "2", "processes": "1", "descriptors": "0,1,2",
		"clone3":     "ENOSYS", // libc falls back to clone, which is filtered
		"tcp socket": "allowed", "unix socket": "allowed", "netlink socket": "allowed", "mkfifo": "allowed",
		"write /tmp": "allowed", "write /run": "allowed", "write /dev/shm": "allowed", "write /dev/null": "allowed",
		"write /": "EROFS", "write /etc/passwd": "EROFS", "write /usr": "EROFS", "write /app": "EROFS", "write /sys": "EROFS",
		"write /proc/sys": "EROFS", "write sysrq": "EROFS ENOENT", "write cgroup": "EROFS",
		"read /dev/mem": "ENOENT", "read /dev/kmsg": "ENOENT", "read /etc/shadow": "ENOENT", "read /proc/kcore": "masked ENOENT",
		"read host's secret": "ENOENT", "read root of init": "ENOENT", "lower niceness": "EACCES",
		"overwrite runtime": "EACCES EROFS", // by now it is its own program, on a read-only mount
	}
	for _, c := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		want[c] = "0000000000000000"
	}
	for name, g := range got {
		w := want[name]
		if w == "" {
			w = "EPERM"
		}
		if !slices.Contains(strings.Fields(w), g) {
			t.Errorf("%s: got %s, want %s", name, g, w)
		}
	}
	for name := range want {
		if got[name] == "" {
			t.Errorf("%s: not tried", name)
		}
	}
	if len(got) < 60 {
		t.Errorf("got %d attempts, want more than 60", len(got))
	}
}

// TestAPermissionOpensItsWallAndNoOther: the same hostile program, permitted to
// trace.
func TestAPermissionOpensItsWallAndNoOther(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	if !r.Probe().Seccomp {
		t.Skip("SKIPPED FOR LACK OF SECCOMP: there is no wall to open")
	}
	s := spec(t, "tracer")
	s.Args = []string{probeIn(t, &s), "as-probe"}
	s.Permissions = []sandbox.Permission{sandbox.Trace}
	i := start(t, r, s)
	var got map[string]string
	if err := json.Unmarshal([]byte(i.line()), &got); err != nil {
		t.Fatal(err)
	}
	i.wait()
	for name, shut := range map[string]bool{"process_vm_readv": false, "kcmp": false, "io_uring": true, "keyctl": true, "bpf": true, "unshare user": true, "mount": true} {
		if (got[name] == "EPERM") != shut {
			t.Errorf("%s: got %s, want refused %v", name, got[name], shut)
		}
	}
}

func TestHostsViewOfAModule(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	s := spec(t, "seen")
	s.Args = []string{"/bin/bash", "-c", "echo ready; exec sleep 1000"}
	s.User = "7:8"
	i := start(t, r, s)
	i.line()
	pid := strconv.Itoa(i.Pid())
	uid, gid := strconv.Itoa(int(s.IDBase)+7), strconv.Itoa(int(s.IDBase)+8)
	if got := strings.Fields(statusField(pid, "Uid")); got[0] != uid || got[1] != uid || got[2] != uid || got[3] != uid {
		t.Errorf("uid on the host: got %v, want %s", got, uid)
	}
	if got := strings.Fields(statusField(pid, "Gid")); got[1] != gid {
		t.Errorf("gid on the host: got %v, want %s", got, gid)
	}
	for _, ns := range []string{"user", "mnt", "pid", "ipc", "uts", "net", "cgroup"} {
		inside, err := os.Readlink("/proc/" + pid + "/ns/" + ns)
		own, err2 := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || err2 != nil || inside == own {
			t.Errorf("namespace %s: got %s and %s, %v, %v, want two", ns, inside, own, err, err2)
		}
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	const session, tty = 3, 4 // after the name
	f := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+1:]))
	if f[session] != pid || f[tty] != "0" {
		t.Errorf("session %s, terminal %s: want its own (%s), and none", f[session], f[tty], pid)
	}
	if got, err := os.ReadFile("/proc/" + pid + "/oom_score_adj"); err != nil || strings.TrimSpace(string(got)) != "300" {
		t.Errorf("oom score: got %s, %v, want 300", got, err)
	}
}

// probeIn mounts the test binary into the sandbox and returns its path there.
func probeIn(t *testing.T, s *sandbox.Spec) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.Mounts = append(s.Mounts, sandbox.Mount{Source: exe, Target: "/run/probe"})
	return "/run/probe"
}
