package container_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// The escapes from other runtimes, tried on this one, for both ways to start.

// TestModuleCannotOverwriteTheRuntimesBinary is CVE-2019-5736: the module makes
// the runtime itself its program, keeps it open, and writes to it once nothing
// executes it any more.
func TestModuleCannotOverwriteTheRuntimesBinary(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before := checksum(t, exe)
	for name, set := range starts {
		t.Run(name, func(t *testing.T) {
			r := newRuntime(t)
			set(r)
			s := spec(t, "overwrite")
			s.Args = []string{"/proc/self/exe", "as-probe", "reopen"}
			i := start(t, r, s)
			// Through overlayfs it is a read-only file system; a copy in memory, where there is none, cannot even be read.
			if got := i.line(); !refused(strings.TrimPrefix(got, "the runtime opened for writing: ")) {
				t.Errorf("got %q, want a refusal", got)
			}
			if got := i.line(); !reopened(got) {
				t.Errorf("after it ended: got %q, want a read-only file system", got)
			}
			i.wait()

			// The same by a further process, which begins another way.
			s = spec(t, "overwrite-exec")
			s.Args = []string{"/bin/bash", "-c", "echo ready; sleep 1000"}
			i = start(t, r, s)
			i.line()
			var out bytes.Buffer
			_, err := i.Instance.(sandbox.Execer).Exec(t.Context(), sandbox.Command{Args: []string{"/proc/self/exe", "as-probe", "reopen"}, Stdout: &out, Stderr: &out})
			if err == nil && !reopened(strings.TrimSpace(out.String())) {
				t.Errorf("exec: got %q, want a read-only file system", out.String())
			}
		})
	}
	if checksum(t, exe) != before {
		t.Error("the runtime's binary was changed")
	}
}

func refused(why string) bool {
	return why == unix.EROFS.Error() || why == unix.ETXTBSY.Error() || why == unix.EACCES.Error()
}

// reopened tells whether a try to write to the runtime through a descriptor was refused.
func reopened(line string) bool {
	return strings.HasSuffix(line, ": Read-only file system") || strings.HasSuffix(line, "the runtime opened for reading: "+unix.EACCES.Error())
}

// reopenMain runs as the runtime's own binary inside, and leaves it open for a
// shell that tries to write to it.
func reopenMain() int {
	f, err := os.OpenFile("/proc/self/exe", os.O_WRONLY, 0)
	if err == nil {
		_ = f.Close()
	}
	_, _ = fmt.Fprintf(os.Stdout, "the runtime opened for writing: %v\n", errors.Unwrap(err))
	fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY, 0)
	if err != nil {
		_, _ = fmt.Fprintf(os.Stdout, "the runtime opened for reading: %v\n", err)
		return 1
	}
	script := "exec 2>&1; : >> /proc/self/fd/" + strconv.Itoa(fd)
	_ = unix.Exec("/bin/bash", []string{"bash", "-c", script}, os.Environ())
	return 1
}

func checksum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestNoDescriptorLeadsOut is CVE-2024-21626: a working directory that names a
// descriptor which the runtime forgot to close.
func TestNoDescriptorLeadsOut(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(dirWith(t, "secret", "of the host"), "secret")
	for name, set := range starts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRuntime(t)
			set(r)
			for fd := 3; fd < 12; fd++ {
				s := spec(t, "cwd-"+strconv.Itoa(fd))
				s.Cwd = "/proc/self/fd/" + strconv.Itoa(fd)
				s.Args = []string{"/bin/bash", "-c", "cat ../../../../../../../../.." + secret + "; exec 2>&1; pwd -P"}
				out, err := sandbox.OpenLog(s.LogPath)
				if err != nil {
					t.Fatal(err)
				}
				i, err := r.Create(t.Context(), s)
				if err != nil { // as it should be
					_ = out.Close()
					continue
				}
				if err := i.Start(); err != nil {
					t.Fatal(err)
				}
				if _, err := i.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 4096)
				n, _ := out.Read(buf)
				if strings.Contains(string(buf[:n]), "of the host") {
					t.Errorf("descriptor %d led out: %s", fd, buf[:n])
				}
				_ = out.Close()
				if err := i.Destroy(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestLinksDoNotMoveMounts is CVE-2021-30465: a mount whose target lies in the
// module's own data, where it put a link, or swaps one in at the right moment.
func TestLinksDoNotMoveMounts(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	data, own := openDir(t), dirWith(t, "mark", "x")
	if err := os.Mkdir(filepath.Join(data, "dir"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/tmp", filepath.Join(data, "link")); err != nil {
		t.Fatal(err)
	}
	with := func(id, target string) sandbox.Spec {
		s := spec(t, id)
		s.Mounts = []sandbox.Mount{{Source: data, Target: "/data", Writable: true}, {Source: own, Target: target}}
		s.Args = []string{"/bin/bash", "-c", "ls /tmp /data/dir"}
		return s
	}
	_, err := r.Create(t.Context(), with("link", "/data/link"))
	if err == nil || !strings.Contains(err.Error(), "open mount target /data/link: Too many levels of symbolic links") &&
		!strings.Contains(err.Error(), "open mount target /data/link: Symbolic link loop") { // as the libc words it
		t.Errorf("got %v, want a refusal that names the link", err)
	}
	swapped := swap(t, filepath.Join(data, "dir"), filepath.Join(data, "link"))
	for n := range 20 {
		i, err := r.Create(t.Context(), with("race-"+strconv.Itoa(n), "/data/dir"))
		if err != nil {
			continue
		}
		mounts, err := os.ReadFile("/proc/" + strconv.Itoa(i.Pid()) + "/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(mounts)) {
			f := strings.Fields(line)
			if strings.HasSuffix(own, f[3]) && f[4] != "/data/dir" && f[4] != "/data/link" { // it is renamed with its place
				t.Errorf("the mount is at %s", f[4])
			}
		}
		if err := i.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
	swapped()
}

// TestADataDirectorySwappedForALink: what was looked at is what is mounted and
// given to the module, whatever its name means a moment later.
func TestADataDirectorySwappedForALink(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	dir, victim := openDir(t), dirWith(t, "f", "of the host")
	data, link := filepath.Join(dir, "data"), filepath.Join(dir, "link")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	s := spec(t, "swapped-before")
	s.Mounts = []sandbox.Mount{{Source: link, Target: "/data", Writable: true, Own: true}}
	if _, err := r.Create(t.Context(), s); err == nil || !strings.Contains(err.Error(), "is a link; a writable mount must be the directory itself") {
		t.Errorf("got %v, want a refusal", err)
	}
	swapped := swap(t, data, link)
	for n := range 20 {
		s := spec(t, "swapped-"+strconv.Itoa(n))
		s.Mounts = []sandbox.Mount{{Source: data, Target: "/data", Writable: true, Own: true}}
		s.Args = []string{"/bin/bash", "-c", ": > /data/mark"}
		i, err := r.Create(t.Context(), s)
		if err != nil {
			continue // refused: it was the link when it was looked at
		}
		if err := i.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := i.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := i.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
	swapped()
	if got := owner(t, victim); got != "0" {
		t.Errorf("the directory behind the link was given to uid %s", got)
	}
	if exists(filepath.Join(victim, "mark")) {
		t.Error("the module wrote to the directory behind the link")
	}
}

// swap exchanges two names over and over until the returned func is called.
func swap(t *testing.T, a, b string) (stop func()) {
	t.Helper()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ; n++ {
			select {
			case <-end:
				if n%2 == 1 { // as they were
					_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
				}
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				n++ // not done: the count stays even
			}
		}
	}()
	done := false
	stop = func() {
		if !done {
			done = true
			close(end)
			<-ended
		}
	}
	t.Cleanup(stop)
	return stop
}

// TestTheAgentBehindASocketIsOutOfReach: a module knows one process outside, the
// one behind its socket. It learns no number of it that means anything, and a
// descriptor of it opens nothing.
func TestTheAgentBehindASocketIsOutOfReach(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	dir := openDir(t)
	path := filepath.Join(dir, "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	s := spec(t, "peer")
	s.Mounts = []sandbox.Mount{{Source: dir, Target: "/run/sandpiper"}}
	s.Args = []string{probeIn(t, &s), "as-probe", "peer", "/run/sandpiper/agent.sock"}
	i := start(t, r, s)
	i.wait()
	got := i.rest()
	want := map[string][]string{
		"pid of the peer":   {"0"},
		"its binary":        {"ENOENT"},
		"its descriptors":   {"ENOENT"},
		"descriptor of it":  {"allowed", "ENOPROTOOPT", "ESRCH", "EINVAL"}, // since Linux 6.5; harmless if the rest holds
		"signal to it":      {"EPERM", "EBADF", "ESRCH", "EINVAL"},
		"file of it":        {"EPERM"},
		"its namespace":     {"EPERM"},
		"its mounts by way": {"EACCES", "EPERM", "ENOTTY", "EBADF", "ESRCH", "EINVAL", "EOPNOTSUPP"},
	}
	for line := range strings.Lines(got) {
		name, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
		allowed, known := want[name]
		if !known {
			t.Errorf("unexpected: %s", line)
			continue
		}
		delete(want, name)
		ok := false
		for _, a := range allowed {
			ok = ok || a == result
		}
		if !ok {
			t.Errorf("%s: got %s, want one of %v", name, result, allowed)
		}
	}
	for name := range want {
		t.Errorf("%s: not tried", name)
	}
}

// peerMain tries to reach the process behind a socket.
func peerMain(path string) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stdout, "connect:", err)
		return 1
	}
	say := func(name string, result any) { _, _ = fmt.Fprintf(os.Stdout, "%s: %v\n", name, result) }
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 1
	}
	proc := "/proc/" + strconv.Itoa(int(cred.Pid))
	say("pid of the peer", cred.Pid)
	_, err = os.Open(proc + "/exe")
	say("its binary", errName(err))
	_, err = os.ReadDir(proc + "/fd")
	say("its descriptors", errName(err))
	const soPeerpidfd = 77
	peer, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, soPeerpidfd)
	say("descriptor of it", errName(err))
	if err != nil {
		peer = -1
	}
	say("signal to it", errName(unix.PidfdSendSignal(peer, syscall.SIGKILL, nil, 0)))
	_, err = unix.PidfdGetfd(peer, 0, 0)
	say("file of it", errName(err))
	say("its namespace", errName(unix.Setns(peer, unix.CLONE_NEWNS)))
	const pidfdGetMntNamespace = 0xff03
	_, err = unix.IoctlRetInt(peer, pidfdGetMntNamespace)
	say("its mounts by way", errName(err))
	return 0
}
