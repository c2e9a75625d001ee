package container_test

import (
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// landlockVersion is the kernel's, 0 without it.
func landlockVersion() int {
	const version = 1
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// landlockDepth is how many more rule sets this thread can be put under. The
// kernel allows sixteen in all.
func landlockDepth() int {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	for n := 0; ; n++ {
		access := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK)
		fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&access)), unsafe.Sizeof(access), 0)
		if errno != 0 {
			return -1
		}
		_, _, errno = unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0)
		_ = unix.Close(int(fd))
		if errno != 0 {
			return n
		}
	}
}

// TestLandlockLiesOnTop: a module is under one rule set already, and still does
// everything that its mounts allow.
func TestLandlockLiesOnTop(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	if landlockVersion() < 2 {
		t.Skip("SKIPPED FOR LACK OF LANDLOCK (version 2, Linux 5.19) in this kernel, or it is not among its security modules")
	}
	const most = 16
	s := spec(t, "landlock")
	s.Args = []string{probeIn(t, &s), "as-probe", "landlock"}
	i := start(t, r, s)
	if got := number(t, i.line()); got != most-1 {
		t.Errorf("got room for %d further rule sets, want %d", got, most-1)
	}
	i.wait()
	s = spec(t, "allowed")
	s.User = "5"
	data := openDir(t)
	s.Mounts = append(s.Mounts, mount(data))
	got := runShell(t, r, s, `exec 2>&1; cd /data && mkdir a b && echo x > a/f && mv a/f b/f && ln b/f a/g && : > b/f && mkfifo a/p && rm -r a
		echo out > /dev/stdout; echo null > /dev/null; echo t > /tmp/f && mkdir /tmp/d && mv /tmp/f /tmp/d/ && ls /tmp/d; ls /data`)
	if want := "out\nf\nb\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
