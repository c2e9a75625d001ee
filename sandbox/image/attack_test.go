package image

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// attacked is what the process that is attacked gets.
type attacked struct {
	Dir    string // all that it may write to
	CA     string
	Active string // the bundle of the module that runs
	Rows   []attackRow
}

// attackRow is a row of the attack list: what arrives, and with which outcome word. The refusals in detail, with every variant, are
// tests of the rooms below; here each is done to a device on which a module runs.
type attackRow struct {
	ID     string
	Ref    string // of a bundle
	Layout string // an OCI layout instead
	Want   []bundle.Code
}

// contained in Want: it is installed, and harmless.
const contained bundle.Code = ""

// patience is what a row may take: 5 s on a machine that does nothing else.
const patience = 20 * time.Second

// mostResident is what the whole process may take.
const mostResident = 32 << 20

func TestAfterEachRowOfTheAttackListTheActiveModuleRunsOn(t *testing.T) {
	t.Parallel()
	asRoot(t)
	dir := t.TempDir()
	mux := http.NewServeMux()
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // cut connections are what is tested
	srv.StartTLS()
	t.Cleanup(srv.Close)
	a := attacked{
		Dir: filepath.Join(dir, "own"), CA: string(certificate(srv.Certificate().Raw)),
		Active: write(t, bundletest.Build(t, bundletest.Options{Files: map[string]string{"data": string(noise(300<<10, 3))}, Manifest: func(m *bundle.Manifest) { m.Name = "active" }})),
		Rows:   attackRows(t, mux, srv.URL),
	}
	if err := os.Mkdir(a.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "attack.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestAttacked$", "-test.v")
	cmd.Env = append(os.Environ(), "IMAGE_ATTACKED="+file, "GOMAXPROCS=2")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("rows held")) {
		t.Errorf("the attacked process: %v:\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "rows held") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// TestAttacked is the process that is attacked. To it the whole host is read-only, but for its own directory: whoever writes
// elsewhere gets an error. Layers that become an image never are files there either: after each step it looks.
func TestAttacked(t *testing.T) {
	file := os.Getenv("IMAGE_ATTACKED")
	if file == "" {
		t.Skip("this is a part of TestAfterEachRowOfTheAttackListTheActiveModuleRunsOn")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var a attacked
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatal(err)
	}
	readOnlyHost(t, a.Dir)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(a.CA))
	client := defaultClient()
	if tr, ok := client.Transport.(*http.Transport); ok {
		tr.TLSClientConfig.RootCAs = roots
	}
	v := &victim{t: t, dir: a.Dir}
	v.store, err = Open(Config{
		Dir: filepath.Join(a.Dir, "state"), MountDir: filepath.Join(a.Dir, "run"), Trusted: []bundle.PublicKey{bundletest.Key(t, 1).Public()},
		HTTP: client, Reserve: 1, MaxBytes: 64 << 20, Retry: func(int) time.Duration { return time.Millisecond },
		hook: func(step string) error {
			v.onlyDocumented("at " + step)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if v.active, err = v.store.Fetch(t.Context(), a.Active, "", nil); err != nil {
		t.Fatal(err)
	}
	v.mounted = mountIt(t, v.store, v.active)
	for _, row := range a.Rows {
		v.attack(row)
	}
	t.Logf("%d rows held, peak of resident memory %d KiB", len(a.Rows), v.peak()>>10)
	if err := v.store.Unmount(t.Context(), v.active); err != nil {
		t.Error(err)
	}
	if err := v.store.Close(); err != nil {
		t.Error(err)
	}
}

// readOnlyHost makes every mount of this process's namespace read-only, but for dir.
func readOnlyHost(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		t.Fatal(err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, dir, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "x"), nil, 0o600); err == nil {
		t.Fatal("the host can be written to, so this test shows nothing")
	}
}

// victim is the device under attack.
type victim struct {
	t       *testing.T
	dir     string
	store   *Store
	active  Image
	mounted string
}

// attack does a row.
func (v *victim) attack(row attackRow) {
	v.t.Helper()
	start := time.Now()
	var img Image
	var err error
	if row.Layout != "" {
		img, err = v.store.Load(v.t.Context(), row.Layout, "", "", nil)
	} else {
		img, err = v.store.Fetch(v.t.Context(), row.Ref, "", nil)
	}
	got := bundle.CodeOf(err)
	ok := err == nil || got != ""
	for i, want := range row.Want {
		if got == want {
			break
		}
		ok = ok && i < len(row.Want)-1
	}
	if !ok || strings.Contains(fmt.Sprint(err), "\n") {
		v.t.Errorf("%s: got %v, want one line with one of %q", row.ID, err, row.Want)
	}
	if err == nil {
		v.contained(row.ID, img)
	}
	v.afterEachRow(row.ID, time.Since(start))
}

// contained mounts what was installed: no device, no set-user bit and no write works there, and it is taken away again.
func (v *victim) contained(id string, img Image) {
	v.t.Helper()
	dir, err := v.store.Mount(v.t.Context(), img)
	if err != nil {
		v.t.Errorf("%s: mount: %v", id, err)
		return
	}
	entries, err := mountsAt(dir)
	if err != nil || len(entries) != 1 || !entries[0].sealed() {
		v.t.Errorf("%s: mounted as %v, %v, want read-only, without devices and set-user bits", id, entries, err)
	}
	if err := v.store.Unmount(v.t.Context(), img); err != nil {
		v.t.Errorf("%s: unmount: %v", id, err)
	}
	if err := v.store.CheckUser(img, "root"); err == nil {
		v.t.Errorf("%s: the image has the host's users", id)
	}
}

// afterEachRow wants the device as it was: the module that runs reads its own bytes, nothing was written but what is documented, no
// floor moved, and the memory and the time were bounded.
func (v *victim) afterEachRow(id string, took time.Duration) {
	v.t.Helper()
	if got, err := os.ReadFile(filepath.Join(v.mounted, "data")); err != nil || !bytes.Equal(got, noise(300<<10, 3)) {
		v.t.Errorf("%s: the active module reads %d bytes, %v", id, len(got), err)
	}
	if _, ok := v.store.Mounted(v.active); !ok {
		v.t.Errorf("%s: the active module's image is not mounted any more", id)
	}
	v.onlyDocumented("after " + id)
	if len(v.store.floors.Modules) != 0 {
		v.t.Errorf("%s: floors are %v, want none", id, v.store.floors.Modules)
	}
	if took > patience {
		v.t.Errorf("%s: took %v, want less than %v", id, took, patience)
	}
	if peak := v.peak(); peak > mostResident {
		v.t.Errorf("%s: %d bytes were resident, want at most %d", id, peak, mostResident)
	}
	if _, err := v.store.GC(v.t.Context(), []bundle.Digest{v.active.Digest}); err != nil {
		v.t.Errorf("%s: gc: %v", id, err)
	}
}

// onlyDocumented wants no file but those that the package doc names, and no directory, link, device or executable at all.
func (v *victim) onlyDocumented(when string) {
	v.t.Helper()
	state := filepath.Join(v.dir, "state")
	known := map[string]string{state: ".json lock", filepath.Join(state, "blobs"): metaSuffix + ociSuffix + imageSuffix, filepath.Join(state, "stage"): partSuffix + resumeSuffix + tailSuffix + ".spd" + repairSuffix + blobSuffix + mergeSuffix}
	for dir, suffixes := range known {
		entries, err := os.ReadDir(dir)
		if err != nil {
			v.t.Fatal(err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if known[path] != "" {
				continue
			}
			info, err := e.Info()
			if err != nil {
				v.t.Fatal(err)
			}
			name := strings.TrimSuffix(e.Name(), newSuffix)
			if ext := filepath.Ext(name); ext == "" && name != "lock" || !strings.Contains(suffixes, ext) || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 != 0 {
				v.t.Errorf("%s: %s is a %v", when, path, info.Mode())
			}
		}
	}
}

// peak is the most that was resident in this process since it began.
func (v *victim) peak() int64 {
	v.t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		v.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		v.t.Fatal(err)
	}
	return kib << 10
}
