package container_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

func statusPid(pid int) string { return strconv.Itoa(pid) }

// host is an id of the sandbox as the host sees it.
func host(s sandbox.Spec, id int) string { return strconv.Itoa(int(s.IDBase) + id) }

// dirWith is a directory with one file, of root.
func dirWith(t *testing.T, name, content string) string {
	t.Helper()
	dir := openDir(t)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mount is the module's own writable /data.
func mount(source string) sandbox.Mount {
	return sandbox.Mount{Source: source, Target: "/data", Writable: true, Own: true}
}

func owner(t *testing.T, path string) string {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(int(st.Sys().(*syscall.Stat_t).Uid))
}

func TestMounts(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	data, readOnly := openDir(t), dirWith(t, "f", "ro")
	// What is mounted on the host below a read-only bind is read-only as well.
	below := filepath.Join(readOnly, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, "mode=1777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(below, unix.MNT_DETACH) })
	s := spec(t, "mounts")
	s.User = "5"
	s.Mounts = []sandbox.Mount{
		{Source: data, Target: "/data", Writable: true, Own: true},
		{Source: readOnly, Target: "/ro"},
		{Source: filepath.Join(readOnly, "f"), Target: "/run/one/file"},
	}
	got := runShell(t, r, s, `exec 2>&1
		echo kept > /data/file; cat /data/file /ro/f /run/one/file; stat -c %u /data
		echo x > /ro/f; echo x > /ro/below/x; echo x > /run/one/file; echo out > /dev/stdout`)
	want := "kept\nroro5\n" +
		"/bin/bash: line 3: /ro/f: Read-only file system\n" +
		"/bin/bash: line 3: /ro/below/x: Read-only file system\n" +
		"/bin/bash: line 3: /run/one/file: Read-only file system\nout\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := owner(t, filepath.Join(data, "file")); got != host(s, 5) {
		t.Errorf("owner of what the module wrote: got %s, want %s", got, host(s, 5))
	}
}

func TestOwnIsNotLedAstray(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	victim := dirWith(t, "f", "")
	link := filepath.Join(openDir(t), "data")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	s := spec(t, "astray")
	s.Mounts = []sandbox.Mount{{Source: link, Target: "/data", Writable: true, Own: true}}
	if i, err := r.Create(t.Context(), s); err == nil {
		_ = i.Destroy()
	}
	if got := owner(t, victim); got != "0" {
		t.Errorf("a link where the data directory should be gave %s to uid %s", victim, got)
	}
}

func TestDevices(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	s := spec(t, "devices")
	s.User = "9"
	s.Devices = []sandbox.Device{
		{Path: "/dev/zero", Target: "/dev/sensor", Access: "r"},
		{Path: "/dev/full", Target: "/dev/bus/full"},
	}
	got := runShell(t, r, s, `exec 2>&1
		head -c 3 /dev/sensor | od -An -tx1; echo x > /dev/sensor; stat -c '%u %a' /dev/sensor /dev/bus/full
		ls /dev/sd* /dev/vd* /dev/mem /dev/loop* 2>/dev/null; echo x > /dev/bus/full`)
	want := " 00 00 00\n/bin/bash: line 2: /dev/sensor: Permission denied\n9 400\n9 600\n" +
		"/bin/bash: line 3: echo: write error: No space left on device\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for path, want := range map[string]string{
		"/dev/not-there": "device /dev/not-there: stat /dev/not-there: no such file or directory",
		"/dev/shm":       "device /dev/shm: is no device node",
	} {
		s := spec(t, "no-device")
		s.Devices = []sandbox.Device{{Path: path}}
		if _, err := r.Create(t.Context(), s); err == nil || err.Error() != "sandbox no-device: create: "+want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestDeviceGroupStandsAlone: a node that came in by another way is of no use.
func TestDeviceGroupStandsAlone(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	if r.Probe().Cgroup == "" {
		t.Skip("SKIPPED FOR LACK OF CGROUPS")
	}
	dir := openDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil { // nodes work here
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	const kmsg = 1<<8 | 11
	if err := unix.Mknod(filepath.Join(dir, "node"), unix.S_IFCHR|0o666, kmsg); err != nil {
		t.Fatal(err)
	}
	s := spec(t, "stray")
	s.Mounts = []sandbox.Mount{{Source: dir, Target: "/data"}}
	got := runShell(t, r, s, `head -c 1 /data/node 2>&1`)
	if !strings.Contains(got, "Permission denied") && !strings.Contains(got, "Operation not permitted") {
		t.Errorf("got %q, want a refusal", got)
	}
}
