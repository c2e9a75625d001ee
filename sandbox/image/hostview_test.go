package image

import (
	"archive/tar"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// viewed is what the process with the read-only host gets.
type viewed struct {
	Dir    string // all that it may write to
	CA     string
	Host   string // of the registry
	Layout string
}

// TestNoFileOfALayerIsEverAFileOfTheHost pulls an image from a registry, and loads another, in a process to which the whole host is read-only
// but for its own directory, where the kernel tells of every name that appears, however short a time.
func TestNoFileOfALayerIsEverAFileOfTheHost(t *testing.T) {
	t.Parallel()
	asRoot(t)
	r := &ocitest.Registry{User: "me", Pass: secret}
	c := ocitest.NewContent(t)
	m := c.Image(runtime.GOARCH, ocitest.Object{"Entrypoint": []string{"/bin/app"}},
		ocitest.Layer(t, ocitest.Entry{Name: "bin", Header: tar.Header{Typeflag: tar.TypeDir}}, ocitest.Entry{Name: "bin/app", Content: hiss(300 << 10), Header: tar.Header{Mode: 0o4755}},
			ocitest.Entry{Name: "gone", Content: hiss(4 << 10)}, ocitest.Entry{Name: "link", Header: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}}),
		ocitest.Layer(t, ocitest.Entry{Name: ".wh.gone"}, ocitest.Entry{Name: "same", Header: tar.Header{Typeflag: tar.TypeLink, Linkname: "bin/app"}}, ocitest.Entry{Name: "conf", Content: hiss(100 << 10)}))
	r.Content, r.Tags = c, map[string]string{"team/app:1": m["digest"].(string)}
	r.Start(t)
	other := ocitest.NewContent(t)
	layout := filepath.Join(t.TempDir(), "layout")
	other.Layout(layout, "v1", other.Image(runtime.GOARCH, ocitest.Object{}, ocitest.Layer(t, ocitest.Entry{Name: "loaded", Content: hiss(50 << 10), Header: tar.Header{Mode: 0o755}})))

	dir := t.TempDir()
	v := viewed{Dir: filepath.Join(dir, "own"), CA: string(certificate(r.Certificate())), Host: r.Host(), Layout: layout}
	if err := os.Mkdir(v.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestViewed$", "-test.v")
	cmd.Env = append(os.Environ(), "IMAGE_VIEWED="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "appeared") {
		t.Errorf("the process with the read-only host: %v:\n%s", err, out)
	}
}

// TestViewed is the process with the read-only host.
func TestViewed(t *testing.T) {
	text := os.Getenv("IMAGE_VIEWED")
	if text == "" {
		t.Skip("this is a part of TestNoFileOfALayerIsEverAFileOfTheHost")
	}
	var v viewed
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	readOnlyHost(t, v.Dir)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(v.CA))
	client := oci.HTTPClient(nil)
	if tr, ok := client.Transport.(*http.Transport); ok {
		tr.TLSClientConfig.RootCAs = roots
	}
	s, err := Open(Config{
		Dir: filepath.Join(v.Dir, "state"), MountDir: filepath.Join(v.Dir, "run"), Reserve: 1,
		OCI: oci.ClientConfig{HTTP: client, Logins: func() []oci.Login { return []oci.Login{{Address: v.Host, User: "me", Password: secret}} }},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := watchNames(t, v.Dir, s.cfg.Dir, s.cfg.MountDir, s.blobs(), s.stage())
	pulled, err := s.Fetch(t.Context(), v.Host+"/team/app:1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := s.Load(t.Context(), v.Layout, "", "there.example/other:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	names := w.appeared(t)
	known := []string{imageSuffix, ociSuffix, blobSuffix, mergeSuffix, "notes.json", "metered.json"}
	for _, name := range names {
		if !slices.ContainsFunc(known, func(suffix string) bool { return strings.HasSuffix(strings.TrimSuffix(name, newSuffix), suffix) }) {
			t.Errorf("%s appeared", name)
		}
	}
	for _, suffix := range []string{imageSuffix, ociSuffix, blobSuffix, mergeSuffix} { // or nobody watched
		if !slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, suffix) }) {
			t.Errorf("%q appeared, and nothing with %s", names, suffix)
		}
	}
	err = filepath.WalkDir(v.Dir, func(path string, d fs.DirEntry, err error) error {
		if info, ierr := d.Info(); ierr == nil && !d.IsDir() && (!info.Mode().IsRegular() || info.Mode().Perm()&0o111 != 0) {
			t.Errorf("%s is a %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for img, file := range map[*Image]string{&pulled: "same", &loaded: "loaded"} {
		dir, err := s.Mount(t.Context(), *img)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Error(err)
		}
		if err := s.Unmount(t.Context(), *img); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d names appeared", len(names))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// nameWatcher is told by the kernel of every name that appears in some directories.
type nameWatcher int

func watchNames(t *testing.T, dirs ...string) nameWatcher {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	for _, dir := range dirs {
		if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
			t.Fatal(err)
		}
	}
	return nameWatcher(fd)
}

// appeared lists the names so far.
func (w nameWatcher) appeared(t *testing.T) []string {
	t.Helper()
	const head = unix.SizeofInotifyEvent
	var names []string
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(int(w), buf)
		if errors.Is(err, unix.EAGAIN) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		for b := buf[:n]; len(b) >= head; {
			mask, length := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			if mask&unix.IN_Q_OVERFLOW != 0 {
				t.Fatal("more names appeared than the kernel remembers")
			}
			name, _, _ := strings.Cut(string(b[head:head+length]), "\x00")
			names, b = append(names, name), b[head+length:]
		}
	}
}
