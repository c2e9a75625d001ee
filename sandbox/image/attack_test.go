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
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// attacked is what the process that is attacked gets.
type attacked struct {
	Dir    string // all that it may write to
	CA     string
	Active string   // the bundle of the module that runs
	Good   string   // one that may be installed
	Killed string   // URL of the folder of another, whose fetch is killed
	Signed []string // prefixes of references that must have the key's signature
	Key    string   // PEM
	Rows   []attackRow
}

// attackRow is a row of the attack list: what arrives, and with which outcome word. The refusals in detail are tests of the rooms below,
// from the same tables; here each is done to a device on which a module runs.
type attackRow struct {
	ID     string
	Ref    string // of a bundle or an image
	Digest string // that is asked for
	Before string // a bundle that is installed before
	Rot    int64  // byte of its image that rots then; 0 = none
	Layout string // an OCI layout instead
	Deed   string // what is done instead, see deeds
	Want   []bundle.Code
}

// contained in Want: it is installed, and harmless.
const contained bundle.Code = ""

const (
	mostCPU      = 5 * time.Second // of a row, as the time of this process's threads: what else the machine does is not counted
	patience     = 2 * time.Minute // of a row on the clock, by which only what hangs is found
	mostResident = 32 << 20        // bytes of the whole process
	stall        = time.Second     // of a connection that brings nothing
)

func TestAfterEachRowOfTheAttackListTheActiveModuleRunsOn(t *testing.T) {
	t.Parallel()
	asRoot(t)
	if os.Getenv("LAB") == "1" && os.Getenv("LAB_TEST_ATTACK") == "" {
		t.Skip("SKIPPED on an emulated board, where making 400 rows takes longer than a boot may: LAB_TEST_ATTACK=1 LAB_TIMEOUT=1200 asks for it")
	}
	dir := t.TempDir()
	mux := http.NewServeMux()
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // cut connections are what is tested
	srv.StartTLS()
	t.Cleanup(srv.Close)
	a := attacked{
		Dir: filepath.Join(dir, "own"), CA: string(certificate(srv.Certificate().Raw)),
		Active: write(t, activeBundle(t)), Good: write(t, big(t, nil)), Killed: srv.URL + "/killed/",
	}
	mux.Handle("/killed/", newWeb(map[string][]byte{"2.spb": little(t).of[2]}))
	a.attackRows(t, mux, srv.URL)
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
	cmd.Env = append(os.Environ(), "IMAGE_ATTACKED="+file, "GOMAXPROCS=2", "TMPDIR="+a.Dir)
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
	client := oci.HTTPClient(nil)
	if tr, ok := client.Transport.(*http.Transport); ok {
		tr.TLSClientConfig.RootCAs = roots
	}
	key, err := oci.ParseKey("cosign.pub", []byte(a.Key))
	if err != nil {
		t.Fatal(err)
	}
	other := bundletest.Key(t, 3).Public()
	other.Prefixes = []string{"acme-"}
	v := &victim{t: t, a: a}
	v.cfg = Config{
		Dir: filepath.Join(a.Dir, "state"), MountDir: filepath.Join(a.Dir, "run"), Trusted: []bundle.PublicKey{bundletest.Key(t, 1).Public(), other},
		Machine: Machine{Arch: []string{ocitest.Arch, runtime.GOARCH, "arm"}, Variant: 6, Kernel: [2]int{6, 1}},
		HTTP:    client, Reserve: 1, MaxBytes: 64 << 20, Stall: stall, Agent: 7, Retry: func(int) time.Duration { return time.Millisecond },
		OCI:  oci.ClientConfig{HTTP: client},
		hook: v.step,
	}
	for _, prefix := range a.Signed {
		v.cfg.Policies = append(v.cfg.Policies, Policy{Prefix: prefix, Keys: []oci.Key{key}})
	}
	v.openStore()
	if v.active, err = v.store.Fetch(t.Context(), a.Active, "", nil); err != nil {
		t.Fatal(err)
	}
	v.module = startActive(t, mountIt(t, v.store, v.active))
	for _, row := range a.Rows {
		v.attack(row)
	}
	t.Logf("%d rows held; process %d of the active module answered after each; peak of resident memory %d KiB (%s); most processor time of a row %v (%s)",
		len(a.Rows), v.module.cmd.Process.Pid, v.largest>>10, v.largestID, v.slowest.Round(time.Millisecond), v.slowestID)
	if err := v.module.end(); err != nil {
		t.Error(err)
	}
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
	if err := unix.MountSetattr(unix.AT_FDCWD, "/proc", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil { // for peak
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "x"), nil, 0o600); err == nil {
		t.Fatal("the host can be written to, so this test shows nothing")
	}
}

// victim is the device under attack.
type victim struct {
	t      *testing.T
	a      attacked
	cfg    Config
	store  *Store
	active Image
	module *activeModule

	planting bool // by the test itself, into the state directory
	fail     func(step string) error
	steps    []string

	slowest   time.Duration
	slowestID string
	largest   int64 // bytes that were resident
	largestID string
}

// step looks around before each durable step.
func (v *victim) step(step string) error {
	v.steps = append(v.steps, step)
	if !v.planting {
		v.onlyDocumented("at " + step)
	}
	if v.fail != nil {
		return v.fail(step)
	}
	return nil
}

func (v *victim) openStore() {
	v.t.Helper()
	var err error
	if v.store, err = Open(v.cfg); err != nil {
		v.t.Fatal(err)
	}
}

// attack does a row.
func (v *victim) attack(row attackRow) {
	v.t.Helper()
	debug.FreeOSMemory() // as the agent does when it is idle
	const forget = "5"   // the kernel's word for the most that was resident
	if err := os.WriteFile("/proc/self/clear_refs", []byte(forget), 0); err != nil {
		v.t.Fatal(err)
	}
	start, cpu := time.Now(), cpuTime(v.t)
	if row.Deed != "" {
		if err := deeds()[row.Deed](v); err != nil {
			v.t.Errorf("%s: %v", row.ID, err)
		}
	} else {
		v.arrive(row)
	}
	if took := time.Since(start); took > patience {
		v.t.Errorf("%s: took %v, want less than %v", row.ID, took, patience)
	}
	took := cpuTime(v.t) - cpu
	if took > mostCPU {
		v.t.Errorf("%s: took %v of the processor, want less than %v", row.ID, took, mostCPU)
	}
	if took > v.slowest {
		v.slowest, v.slowestID = took, row.ID
	}
	v.afterEachRow(row.ID)
}

// arrive has what a row names arrive.
func (v *victim) arrive(row attackRow) {
	v.t.Helper()
	if row.Before != "" {
		img, err := v.store.Fetch(v.t.Context(), row.Before, "", nil)
		if err != nil {
			v.t.Errorf("%s: before: %v", row.ID, err)
			return
		}
		if row.Rot > 0 {
			rot(v.t, v.store, img, row.Rot)
		}
	}
	var img Image
	var err error
	if row.Layout != "" {
		img, err = v.store.Load(v.t.Context(), row.Layout, "", "", nil)
	} else {
		img, err = v.store.Fetch(v.t.Context(), row.Ref, row.Digest, nil)
	}
	if got := bundle.CodeOf(err); err != nil && got == "" || !slices.Contains(row.Want, got) || strings.Contains(fmt.Sprint(err), "\n") {
		v.t.Errorf("%s: got %v, want one line with one of %q", row.ID, err, row.Want)
	}
	if err == nil {
		v.contained(row.ID, img)
	}
}

// cpuTime is what this process has used of the processor.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
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

// afterEachRow wants the device as it was: the process of the module that runs answers with its own data, nothing was written but what is
// documented, no floor moved, and the memory was bounded.
func (v *victim) afterEachRow(id string) {
	v.t.Helper()
	if err := v.module.ask(id); err != nil {
		v.t.Errorf("%s: %v", id, err)
	}
	if _, ok := v.store.Mounted(v.active); !ok {
		v.t.Errorf("%s: the active module's image is not mounted any more", id)
	}
	v.onlyDocumented("after " + id)
	if len(v.store.floors.Modules) != 0 {
		v.t.Errorf("%s: floors are %v, want none", id, v.store.floors.Modules)
	}
	peak := v.peak()
	if peak > mostResident && !raced {
		v.t.Errorf("%s: %d bytes were resident, want at most %d", id, peak, mostResident)
	}
	if peak > v.largest {
		v.largest, v.largestID = peak, id
	}
	if _, err := v.store.GC(v.t.Context(), []bundle.Digest{v.active.Digest}); err != nil {
		v.t.Errorf("%s: gc: %v", id, err)
	}
}

// onlyDocumented wants no file but those that the package doc names, and no directory, link, device or executable at all.
func (v *victim) onlyDocumented(when string) {
	v.t.Helper()
	state := filepath.Join(v.a.Dir, "state")
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

// peak is the most that was resident in this process since the row began.
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
