package container_test

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// imageDir is an image with nothing in it but this test binary, the libraries it
// was linked with, and the files given.
func imageDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(openDir(t), "image, with: odd name")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, exe, filepath.Join(dir, "probe"))
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if path := f[len(f)-1]; strings.HasPrefix(path, "/") && strings.Contains(path, ".so") && !exists(dir+path) {
			copyFile(t, path, dir+path)
			if name := soname(t, path); name != "" && !exists(filepath.Join(dir, filepath.Dir(path), name)) {
				if err := os.Symlink(filepath.Base(path), filepath.Join(dir, filepath.Dir(path), name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if loader := interpreter(t, exe); loader != "" && !exists(dir+loader) {
		copyFile(t, loader, dir+loader)
	}
	for _, lib := range []string{"/lib", "/lib64"} { // of a merged-usr host
		if target, err := os.Readlink(lib); err == nil && !exists(dir+lib) {
			if err := os.Symlink(target, dir+lib); err != nil {
				t.Fatal(err)
			}
		}
	}
	for path, content := range files {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, full)
		} else {
			err = os.WriteFile(full, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// soname is what a library is called by those that were linked with it.
func soname(t *testing.T, path string) string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, err := f.DynString(elf.DT_SONAME)
	if err != nil || len(names) == 0 {
		return ""
	}
	return names[0]
}

func interpreter(t *testing.T, exe string) string {
	t.Helper()
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := f.Section(".interp")
	if s == nil {
		return "" // static
	}
	b, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(b), "\x00")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	settled(t, to)
}

// imageSpec runs the probe of an image with these arguments.
func imageSpec(t *testing.T, id, image string, args ...string) sandbox.Spec {
	t.Helper()
	s := spec(t, id)
	s.Root = sandbox.Root{Kind: sandbox.Image, Image: image}
	s.Args = append([]string{"/probe", "as-probe"}, args...)
	return s
}

func TestImageRoot(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	if !r.Probe().Overlay {
		t.Skip("SKIPPED FOR LACK OF OVERLAYFS in this kernel")
	}
	secret := filepath.Join(openDir(t), "secret")
	if err := os.WriteFile(secret, []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	image := imageDir(t, map[string]string{
		"etc/passwd": "app:x:12:13::/home/app:/x\n", "etc/group": "app:x:13:\ndialout:x:20:app\n",
		"etc/resolv.conf": "-> ../run/systemd/resolve/stub.conf", // replaced, not followed
		"srv":             "-> /data",                            // followed, within the image
		"opt/escape":      "-> ../../../../../../../etc",
		"data/own":        "of the image",
	})
	before := listing(t, image)
	s := imageSpec(t, "image", image, "cat", "/etc/hostname", "/etc/resolv.conf", "/data/own", "/data/new", "/opt/escape/new", "/etc/new", secret)
	s.Hostname, s.User, s.Cwd = "box-7", "app", "/srv/dir"
	s.Mounts = []sandbox.Mount{
		{Source: secret, Target: "/srv/new"},
		{Source: secret, Target: "/opt/escape/new"},
	}
	i := start(t, r, s)
	i.wait()
	got := i.rest()
	want := `/etc/hostname: "box-7\n" <nil>
/etc/resolv.conf: "# this sandbox has no network beyond itself\n" <nil>
/data/own: "of the image" <nil>
/data/new: "host" <nil>
/opt/escape/new: "host" <nil>
/etc/new: "host" <nil>
` + secret + `: "" no such file or directory
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if err := i.Destroy(); err != nil {
		t.Fatal(err)
	}
	if after := listing(t, image); after != before {
		t.Errorf("the image changed: got\n%swant\n%s", after, before)
	}
	if exists("/etc/new") {
		t.Error("a link of the image led to the host")
	}
}

func TestAWritableRootKeepsChangesUntilItsEnd(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	image := imageDir(t, map[string]string{"etc/passwd": "root:x:0:0::/:/x\n", "opt/there": "of the image"})
	before := listing(t, image)
	s := imageSpec(t, "writer", image, "write", "/new", "/etc/passwd", "/opt/there", "/opt/more", "/proc/new", "/sys/new")
	s.Root.Writable = 3<<20 + 512<<10
	for range 2 { // the second finds nothing of the first
		i, err := r.Create(t.Context(), s)
		if errors.Is(err, sandbox.ErrUnsupported) {
			t.Skip("SKIPPED FOR LACK OF OVERLAYFS ON IDMAPPED MOUNTS (Linux 5.19): " + err.Error())
		}
		if err == nil {
			err = i.Destroy()
		}
		if err != nil {
			t.Fatal(err)
		}
		run := start(t, r, s)
		run.wait()
		want := "/new false true\n/etc/passwd false true\n/opt/there false true\n/opt/more true false\n/proc/new false false\n/sys/new false false\n"
		if got := run.rest(); got != want {
			t.Errorf("got file, full, written\n%swant\n%s", got, want)
		}
		if err := run.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
	if after := listing(t, image); after != before {
		t.Errorf("the image changed: got\n%swant\n%s", after, before)
	}
	s.Root = sandbox.Root{Kind: sandbox.HostView, Image: s.Root.Image, Writable: 1 << 20}
	if _, err := r.Create(t.Context(), s); err == nil || !strings.Contains(err.Error(), "only an image's root can be writable") {
		t.Errorf("a view of the host: got %v, want a refusal", err)
	}
}

func TestImageUserIsTheImagesOwn(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	image := imageDir(t, map[string]string{"etc/passwd": "app:x:12:13::/:/x\n", "etc/group": "dialout:x:20:app\n"})
	s := imageSpec(t, "user", image, "hold")
	s.User = "app:dialout"
	i := start(t, r, s)
	pid := statusPid(i.Pid())
	if got := strings.Fields(statusField(pid, "Uid"))[0]; got != host(s, 12) {
		t.Errorf("uid: got %s, want %s", got, host(s, 12))
	}
	if got := strings.Fields(statusField(pid, "Gid"))[0]; got != host(s, 20) {
		t.Errorf("gid: got %s, want %s", got, host(s, 20))
	}
	s = imageSpec(t, "stranger", image, "hold")
	s.User = "nobody-here"
	_, err := r.Create(t.Context(), s)
	if want := `sandbox stranger: create: user "nobody-here": unable to find user nobody-here: no matching entries in passwd file`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestFilesOfRootInAnImage: what root alone may read in an image, the module's
// root may, its other users may not, and the image stays as it is.
func TestFilesOfRootInAnImage(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	if !mapsImages(t) {
		t.Skip("SKIPPED FOR LACK OF IDMAPPED MOUNTS: Linux 6.3 has them below overlayfs for every file system that tests lie on")
	}
	image := imageDir(t, map[string]string{"etc/secret": "of root"})
	secret := filepath.Join(image, "etc/secret")
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{"0": "\"of root\" <nil>", "5": "\"\" permission denied"} {
		s := imageSpec(t, "reader-"+user, image, "cat", "/etc/secret")
		s.User = user
		i := start(t, r, s)
		i.wait()
		if got := i.rest(); got != "/etc/secret: "+want+"\n" {
			t.Errorf("user %s: got %q, want %s", user, got, want)
		}
	}
	if got := owner(t, secret); got != "0" {
		t.Errorf("on the disk it belongs to %s", got)
	}
}

// mapsImages tells whether this kernel is one that must be able to, on every file
// system that tests lie on.
func mapsImages(t *testing.T) bool {
	t.Helper()
	raw, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(raw), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 3
}

func TestImageWithoutOverlayfs(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	r.WithoutOverlay()
	empty := imageDir(t, nil)
	_, err := r.Create(t.Context(), imageSpec(t, "bare", empty, "hold"))
	if want := "sandbox bare: create: image " + empty + " has no /proc, and this kernel has no overlayfs to add it; add it to the image or build the kernel with CONFIG_OVERLAY_FS"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	full := imageDir(t, map[string]string{
		"proc/x": "", "sys/x": "", "dev/x": "", "tmp/x": "", "run/x": "", "data/x": "",
		"etc/hosts": "", "etc/hostname": "old", "etc/resolv.conf": "",
	})
	s := imageSpec(t, "full", full, "cat", "/etc/hostname", "/data/here")
	s.Mounts = []sandbox.Mount{{Source: dirWith(t, "here", "x"), Target: "/data"}}
	i := start(t, r, s)
	i.wait()
	if got, want := i.rest(), "/etc/hostname: \"full\\n\" <nil>\n/data/here: \"x\" <nil>\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// listing is every name below a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		b.WriteString(path + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
