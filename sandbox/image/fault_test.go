package image

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// act is something that changes the directory. It is done by a store that fails, or by a process that is killed, at each of its steps
// in turn, and then again by the next.
type act struct {
	serve   func(t *testing.T) http.Handler
	prepare func(t *testing.T, s *Store, base string)
	do      func(t *testing.T, s *Store, base string) error
	ref     string   // of what it installs, below base; "" = nothing
	quiet   []string // what steps end with whose failure is only logged
}

// acts by name. The bundles are small: each act is done a hundred times.
func acts() map[string]act {
	fetch := func(name string) func(t *testing.T, s *Store, base string) error {
		return func(t *testing.T, s *Store, base string) error {
			t.Helper()
			_, err := s.Fetch(t.Context(), base+name, "", nil)
			return err
		}
	}
	noted := []string{"notes", "count"}
	web := func(delta bool) func(t *testing.T) http.Handler {
		return func(t *testing.T) http.Handler {
			t.Helper()
			r := little(t)
			files := map[string][]byte{"1.spb": r.of[1], "2.spb": r.of[2]}
			if delta {
				files[r.deltas[[2]int{1, 2}].name] = r.deltas[[2]int{1, 2}].spd
			}
			return newWeb(files)
		}
	}
	old := func(t *testing.T, s *Store, _ string) {
		t.Helper()
		install(t, s, little(t).of[1])
	}
	pulled := func(t *testing.T, s *Store, base string) Image {
		t.Helper()
		img, err := s.Fetch(t.Context(), base+"1.spb", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	only := func(s *Store) bundle.Digest { return s.List()[0].Digest }
	return map[string]act{
		"whole":  {serve: web(false), prepare: func(*testing.T, *Store, string) {}, do: fetch("2.spb"), ref: "2.spb", quiet: noted},
		"chunks": {serve: web(false), prepare: old, do: fetch("2.spb"), ref: "2.spb", quiet: noted},
		"delta":  {serve: web(true), prepare: old, do: fetch("2.spb"), ref: "2.spb", quiet: noted},
		"oci": {serve: registryHandler, prepare: old, do: func(t *testing.T, s *Store, base string) error {
			t.Helper()
			_, err := s.Fetch(t.Context(), strings.TrimPrefix(base, "https://")+"team/app:1", "", nil)
			return err
		}, ref: "team/app:1", quiet: noted},
		"commit": {serve: web(false), prepare: old, do: func(_ *testing.T, s *Store, _ string) error { return s.Commit(only(s)) }},
		"pin":    {serve: web(false), prepare: old, do: func(_ *testing.T, s *Store, _ string) error { return s.Pin(only(s), true) }},
		"collect": {serve: web(false), prepare: func(t *testing.T, s *Store, base string) {
			t.Helper()
			pulled(t, s, base)
			install(t, s, little(t).of[2])
		}, do: func(t *testing.T, s *Store, _ string) error {
			t.Helper()
			list := s.List()
			_, err := s.GC(t.Context(), []bundle.Digest{list[0].Digest})
			return err
		}, quiet: noted},
		"oci repair": {serve: registryHandler, prepare: func(t *testing.T, s *Store, base string) {
			t.Helper()
			img, err := s.Fetch(t.Context(), strings.TrimPrefix(base, "https://")+"team/app:1", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			rot(t, s, img, 70<<10)
		}, do: func(t *testing.T, s *Store, _ string) error {
			t.Helper()
			_, err := s.Repair(t.Context(), only(s))
			return err
		}, quiet: noted},
		"repair": {serve: web(false), prepare: func(t *testing.T, s *Store, base string) {
			t.Helper()
			rot(t, s, pulled(t, s, base), 70<<10)
		}, do: func(t *testing.T, s *Store, _ string) error {
			t.Helper()
			_, err := s.Repair(t.Context(), only(s))
			return err
		}, quiet: noted},
	}
}

var littleReleases = struct { //nolint:gochecknoglobals // made once for all tests
	once sync.Once
	releases
}{}

// little is two releases of 200 KiB.
func little(t testing.TB) releases {
	t.Helper()
	littleReleases.once.Do(func() {
		r := releases{deltas: make(map[[2]int]namedDelta)}
		for v := range 2 {
			r.of[v+1] = bundletest.Build(t, bundletest.Options{
				Files:    map[string]string{"a": string(noise(50<<10, byte(20+v))), "b": string(noise(150<<10, 5))},
				Manifest: func(m *bundle.Manifest) { m.Sequence, m.Version = uint64(v+1), fmt.Sprint(v+1) },
			})
		}
		name, spd := deltaBetween(t, r.of[1], r.of[2])
		r.deltas[[2]int{1, 2}] = namedDelta{name, spd}
		littleReleases.releases = r
	})
	return littleReleases.releases
}

// registryHandler is a registry's, behind our own server.
func registryHandler(t *testing.T) http.Handler {
	t.Helper()
	r := registryOf(t, &ocitest.Registry{})
	client := r.Client()
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		out, err := http.NewRequestWithContext(q.Context(), q.Method, r.URL()+q.URL.Path, nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		out.Header = q.Header.Clone()
		resp, err := client.Do(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = copyAll(w, resp.Body)
	})
}

// bed is where an act is done: a server, and a directory that outlives stores.
type bed struct {
	t    *testing.T
	act  act
	base string
	ca   []byte
	cfg  Config
	sent *counter
}

func newBed(t *testing.T, a act) *bed {
	t.Helper()
	b := &bed{t: t, act: a, sent: &counter{next: a.serve(t)}}
	url, s := server(t, b.sent.ServeHTTP, nil)
	b.base, b.cfg = strings.TrimSuffix(url, "x.spb"), s.cfg
	b.cfg.OCI.HTTP = b.cfg.HTTP
	b.cfg.OCI.Body = nil
	b.cfg.syncEvery = 100 << 10
	b.cfg.Dir = filepath.Join(inMemory(t), "state")
	b.ca = b.sent.ca(t, b.base, b.cfg.HTTP)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, b.cfg, nil)
	a.prepare(t, s, b.base)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// inMemory is a directory of a file system in memory, where there is one: a kill loses nothing of any, and syncs take their time.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sandpiper-test-") //nolint:usetesting // another file system
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// open opens a store on the directory.
func (b *bed) open(hook func(step string) error) *Store {
	b.t.Helper()
	cfg := b.cfg
	cfg.hook = hook
	return reopen(b.t, cfg, nil)
}

// steps does the act on a bed of its own and lists its steps.
func steps(t *testing.T, a act) []string {
	t.Helper()
	b := newBed(t, a)
	var list []string
	s := b.open(func(step string) error {
		list = append(list, step)
		return nil
	})
	if err := a.do(t, s, b.base); err != nil {
		t.Fatal(err)
	}
	return list
}

// moments are where an act is disturbed: at the first time of each step, and in the middle of those that come often.
func moments(list []string) map[string]int {
	at := make(map[string]int)
	for _, step := range list {
		n := 0
		for _, s := range list {
			if s == step {
				n++
			}
		}
		at[step+" 1"] = 1
		if n > 2 {
			at[fmt.Sprint(step, " ", n/2+1)] = n/2 + 1
		}
	}
	return at
}

// errors of a disk, by the word that a bundle.Error has for them.
var diskErrors = map[error]bundle.Code{unix.ENOSPC: bundle.ErrSpace, unix.EIO: ""} //nolint:gochecknoglobals // a table

func TestI4EveryStepMayFailAndTheNextTryGoesOn(t *testing.T) {
	t.Parallel()
	for name, a := range acts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list := steps(t, a)
			t.Logf("steps: %s", strings.Join(slices.Compact(slices.Clone(list)), ", "))
			for moment, n := range moments(list) {
				step := moment[:strings.LastIndex(moment, " ")]
				for cause, code := range diskErrors {
					b := newBed(t, a)
					seen := 0
					s := b.open(func(at string) error {
						if at == step {
							if seen++; seen == n {
								return cause
							}
						}
						return nil
					})
					err := a.do(t, s, b.base)
					quiet := slices.ContainsFunc(a.quiet, func(end string) bool { return strings.HasSuffix(step, end) })
					switch {
					case quiet && err != nil:
						t.Errorf("%s with %v: got %v, want it in the log only", moment, cause, err)
					case !quiet && (!errors.Is(err, cause) || bundle.CodeOf(err) != code):
						t.Errorf("%s with %v: got %v, want that with code %q", moment, cause, err, code)
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
					b.goesOn(fmt.Sprint(moment, " with ", cause))
				}
			}
		})
	}
}

func TestI5KilledAtEveryStepTheNextAgentGoesOn(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range acts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for moment, n := range moments(steps(t, a)) {
				b := newBed(t, a)
				ca := filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(ca, b.ca, 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestKilled$")
				cmd.Env = append(os.Environ(), "IMAGE_KILLED="+strings.Join([]string{name, moment[:strings.LastIndex(moment, " ")], strconv.Itoa(n), b.cfg.Dir, b.cfg.MountDir, b.base, ca}, "\n"))
				out, err := cmd.CombinedOutput()
				if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
					t.Fatalf("%s: the child ended with %v, want it killed: %s", moment, err, out)
				}
				b.goesOn("killed at " + moment)
			}
		})
	}
}

// TestKilled is the process that is killed.
func TestKilled(t *testing.T) {
	words := strings.Split(os.Getenv("IMAGE_KILLED"), "\n")
	if len(words) != 7 {
		t.Skip("this is a part of TestI5KilledAtEveryStepTheNextAgentGoesOn")
	}
	left, err := strconv.Atoi(words[2])
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Dir: words[3], MountDir: words[4], Trusted: []bundle.PublicKey{bundletest.Key(t, 1).Public()}, Reserve: 1,
		Retry: func(int) time.Duration { return time.Millisecond }, syncEvery: 100 << 10,
	}
	text, err := os.ReadFile(words[6])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	cfg.HTTP = oci.HTTPClient(nil)
	if tr, ok := cfg.HTTP.Transport.(*http.Transport); ok {
		tr.TLSClientConfig.RootCAs = roots
	}
	cfg.OCI.HTTP = cfg.HTTP
	cfg.hook = func(step string) error {
		if step == words[1] {
			if left--; left == 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		return nil
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Fatalf("not killed: %v", acts()[words[0]].do(t, s, words[5]))
}

// certificate of a server, as PEM.
func certificate(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}
