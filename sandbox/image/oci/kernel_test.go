package oci_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

func TestTheKernelReadsWhatWasMerged(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("THE KERNEL IS NOT ASKED: mounting an image needs root")
	}
	big := strings.Repeat("0123456789abcdef", 10_000)
	entries := []tar.Header{
		ocitest.Dir("many"), ocitest.File("big", big), ocitest.File("tail", big[:4100]), ocitest.File("block", big[:8192]), ocitest.File("small", "s"), ocitest.File("empty", ""),
		ocitest.Link("same", "big"), ocitest.Symlink("short", "big"), ocitest.Symlink("long", strings.Repeat("x/", 2000)), ocitest.Dir("hollow"),
		{Typeflag: tar.TypeDir, Name: "open", Mode: 0o1777, Uid: 70000, Gid: 80000},
		{Typeflag: tar.TypeReg, Name: "noted", Mode: 0o600, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "1", "SCHILY.xattr.user.longer": strings.Repeat("v", 700)}},
	}
	for i := range 2000 {
		entries = append(entries, ocitest.File(fmt.Sprintf("many/%s%04d", strings.Repeat("n", i%100), i), big[:i]))
	}
	l := ocitest.NewLayout(t)
	l.Index(l.Image(ocitest.Object{}, ocitest.Tar(t, entries...)))
	_, _, f, err := merge(t, l.Path)
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	err = unix.Mount(f.Name(), at, "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, "")
	if errors.Is(err, unix.ENOTBLK) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) {
		t.Skipf("THE KERNEL IS NOT ASKED: it mounts no EROFS from a file here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}()
	for name, want := range map[string]string{"big": big, "same": big, "tail": big[:4100], "block": big[:8192], "small": "s", "empty": "", "short": big} {
		if got, err := os.ReadFile(filepath.Join(at, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
	if target, err := os.Readlink(filepath.Join(at, "long")); err != nil || target != strings.Repeat("x/", 2000) {
		t.Errorf("long: got %d bytes, %v", len(target), err)
	}
	count := 0
	err = filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(p, "/many/") {
			var i int
			if _, serr := fmt.Sscanf(p[len(p)-4:], "%d", &i); serr != nil {
				return serr
			}
			got, rerr := os.ReadFile(p)
			if count++; rerr != nil || string(got) != big[:i] {
				t.Errorf("%s: got %d bytes, %v", p, len(got), rerr)
			}
		}
		return err
	})
	if err != nil || count != 2000 {
		t.Errorf("got %d files, %v, want 2000", count, err)
	}
	var st, other syscall.Stat_t
	if err := errors.Join(syscall.Stat(at+"/big", &st), syscall.Stat(at+"/same", &other)); err != nil || st.Nlink != 2 || st.Ino != other.Ino {
		t.Errorf("hard link: got %d links of inodes %d and %d, %v", st.Nlink, st.Ino, other.Ino, err)
	}
	if err := syscall.Stat(at+"/open", &st); err != nil || st.Mode != syscall.S_IFDIR|0o1777 || st.Uid != 70000 || st.Gid != 80000 || st.Mtim.Nano() != ocitest.Epoch().UnixNano() {
		t.Errorf("open: got %+v, %v", st, err)
	}
	value := make([]byte, 1024)
	if n, err := unix.Getxattr(at+"/noted", "user.longer", value); err != nil || n != 700 {
		t.Errorf("attribute: got %d bytes, %v, want 700", n, err)
	}
}
