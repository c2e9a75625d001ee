package image

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// secret must be seen by the registry and by nobody else.
const secret = "open-sesame"

// hiss does not compress, so that cuts are somewhere in it.
func hiss(n int) []byte {
	b := make([]byte, n)
	_, _ = mathrand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// registryOf serves an image of two layers as team/app:1, and an index around it as team/app:multi.
func registryOf(t *testing.T, r *ocitest.Registry) *ocitest.Registry {
	t.Helper()
	c := ocitest.NewContent(t)
	m := c.Image(runtime.GOARCH, ocitest.Object{"Entrypoint": []string{"/app"}},
		ocitest.Layer(t, ocitest.Entry{Name: "app", Content: hiss(400 << 10)}), ocitest.Layer(t, ocitest.Entry{Name: "conf", Content: hiss(100 << 10)}))
	other := c.Image("s390x", ocitest.Object{}, ocitest.Layer(t, ocitest.Entry{Name: "other"}))
	index := c.Index(other, m)
	r.Content = c
	r.Tags = map[string]string{"team/app:1": m["digest"].(string), "team/app:multi": index["digest"].(string)}
	return r.Start(t)
}

// trusting makes a store's client trust the registry.
func trusting(r *ocitest.Registry, more ...func(*Config)) func(*Config) {
	return func(c *Config) {
		c.OCI.HTTP = r.Client()
		for _, change := range more {
			change(c)
		}
	}
}

func login(r *ocitest.Registry) func(*Config) {
	return func(c *Config) {
		c.OCI.Logins = func() []oci.Login {
			return []oci.Login{{Address: r.Host(), User: "me", Password: secret}, {Address: "other.example", User: "you", Password: "wrong"}}
		}
	}
}

func TestAnImageIsPulledByTagAndByDigest(t *testing.T) {
	t.Parallel()
	for how, r := range map[string]*ocitest.Registry{
		"anonymously": {}, "with a password": {User: "me", Pass: secret}, "with a token": {Bearer: true}, "with a token for a password": {Bearer: true, User: "me", Pass: secret},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			registryOf(t, r)
			var log bytes.Buffer
			s := open(t, trusting(r, login(r), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
			img, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			if img.Digest.String() != r.Tags["team/app:1"] || img.OCI == nil || img.OCI.Config.Entrypoint[0] != "/app" || img.OCI.Names[0] != r.Host()+"/team/app:1" {
				t.Errorf("got %+v", img)
			}
			if err := s.Verify(t.Context(), img); err != nil {
				t.Error(err)
			}
			sent := r.Sent.Load()
			again, err := s.Fetch(t.Context(), r.Host()+"/team/app@"+img.Digest.String(), "", nil)
			if err != nil || again.Digest != img.Digest || r.Sent.Load() != sent {
				t.Errorf("by digest: got %v, %v, %d bytes more", again.Digest, err, r.Sent.Load()-sent)
			}
			multi, err := s.Fetch(t.Context(), r.Host()+"/team/app:multi", "", nil)
			if err != nil || multi.Digest != img.Digest || len(multi.OCI.Names) != 2 {
				t.Errorf("through an index: got %v, %v", multi.OCI, err)
			}
			if strings.Contains(log.String(), secret) || strings.Contains(fmt.Sprintf("%v %+v %#v", s.cfg.OCI.Logins(), s.cfg.OCI.Logins(), s.cfg.OCI.Logins()), secret) {
				t.Error("the password is printed")
			}
			if left, err := os.ReadDir(s.stage()); err != nil || len(left) > 0 {
				t.Errorf("left in the stage: %v, %v", left, err)
			}
		})
	}
}

// lie is a registry that lies, and what of it is pulled.
type lie struct {
	registry *ocitest.Registry
	ref      string
	digest   string
	want     bundle.Code
}

// lies are rows J1 to J3, A7, I1 and I2 at a registry.
func lies() map[string]lie {
	answer := func(part string, do func(w http.ResponseWriter, q *http.Request)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.Contains(q.URL.Path, part) {
				return false
			}
			do(w, q)
			return true
		}
	}
	return map[string]lie{
		"no such tag":             {ref: "/team/app:2", want: bundle.ErrTransfer},
		"no such repository":      {ref: "/team/other", want: bundle.ErrTransfer},
		"a password it wants":     {registry: &ocitest.Registry{User: "me", Pass: secret}, ref: "/team/app:1", want: bundle.ErrTransfer},
		"J2 a tag that was moved": {ref: "/team/app:1", digest: "sha256:" + strings.Repeat("ab", 32), want: bundle.ErrTransfer},
		"J3 another manifest":     {registry: &ocitest.Registry{Answer: answer("/manifests/sha256", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })}, ref: "/team/app:multi", want: bundle.ErrDigest},
		"J1 no manifest":          {registry: &ocitest.Registry{Answer: answer("/manifests/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })}, ref: "/team/app:1", want: bundle.ErrOCI},
		"J1 an endless manifest":  {registry: &ocitest.Registry{Answer: answer("/manifests/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2<<20)) })}, ref: "/team/app:1", want: bundle.ErrOCI},
		"A7 another blob":         {registry: &ocitest.Registry{Answer: answer("/blobs/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) })}, ref: "/team/app:1", want: bundle.ErrTransfer},
		"I1 Content-Encoding":     {registry: &ocitest.Registry{Answer: answer("/blobs/", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "gzip") })}, ref: "/team/app:1", want: bundle.ErrTransfer},
		"I2 redirect to a file": {registry: &ocitest.Registry{Answer: answer("/blobs/", func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "file:///etc/shadow", http.StatusFound)
		})}, ref: "/team/app:1", want: bundle.ErrTransfer},
		"I2 redirect to open http": {registry: &ocitest.Registry{Answer: answer("/blobs/", func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "http://127.0.0.1:1/x", http.StatusFound)
		})}, ref: "/team/app:1", want: bundle.ErrTransfer},
		"I2 endless redirects": {registry: &ocitest.Registry{Answer: answer("/blobs/", func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, q.URL.Path+"/", http.StatusFound) })}, ref: "/team/app:1", want: bundle.ErrTransfer},
	}
}

func TestWhatARegistrySaysIsNotBelieved(t *testing.T) {
	t.Parallel()
	for claim, c := range lies() {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			r := c.registry
			if r == nil {
				r = &ocitest.Registry{}
			}
			registryOf(t, r)
			s := open(t, trusting(r))
			_, err := s.Fetch(t.Context(), r.Host()+c.ref, c.digest, nil)
			refused(t, s, err, c.want)
		})
	}
}

func TestCredentialsStayWithTheirRegistry(t *testing.T) {
	t.Parallel()
	elsewhere := registryOf(t, &ocitest.Registry{})
	r := &ocitest.Registry{User: "me", Pass: secret, Answer: func(w http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			http.Redirect(w, q, elsewhere.URL()+q.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}}
	registryOf(t, r)
	trust := r.Client()
	pool := x509.NewCertPool()
	for _, one := range []*ocitest.Registry{r, elsewhere} {
		cert, err := x509.ParseCertificate(one.Certificate())
		if err != nil {
			t.Fatal(err)
		}
		pool.AddCert(cert)
	}
	trust.Transport.(*http.Transport).TLSClientConfig.RootCAs = pool
	s := open(t, trusting(r, login(r)))
	if _, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil); err != nil {
		t.Fatal(err)
	}
	asked := elsewhere.Asked()
	if len(asked) < 3 {
		t.Fatalf("got %q at the other host, want a config and two layers", asked)
	}
	for _, line := range asked {
		if strings.Contains(line, " as ") {
			t.Errorf("the other host was told who asks: %s", line)
		}
	}
}

func TestOpenHTTPIsSpokenOnlyWhereItIsConfigured(t *testing.T) {
	t.Parallel()
	r := registryOf(t, &ocitest.Registry{Plain: true})
	s := open(t, nil)
	if _, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil); err == nil {
		t.Error("got an image over open http without being told to")
	}
	s = open(t, func(c *Config) { c.OCI.Registries = []oci.Registry{{Prefix: r.Host(), Plain: true}} })
	if _, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil); err != nil {
		t.Error(err)
	}
}

func TestMirrorsAreAskedFirstAndNeedNotHelp(t *testing.T) {
	t.Parallel()
	r := registryOf(t, &ocitest.Registry{Plain: true})
	mirror := registryOf(t, &ocitest.Registry{Plain: true})
	empty := &ocitest.Registry{Plain: true, Content: ocitest.NewContent(t)}
	empty.Start(t)
	with := func(mirrors ...string) func(*Config) {
		return func(c *Config) {
			c.OCI.Registries = []oci.Registry{{Prefix: "registry.example/team", Mirrors: mirrors}}
			for _, one := range []*ocitest.Registry{r, mirror, empty} {
				c.OCI.Registries = append(c.OCI.Registries, oci.Registry{Prefix: one.Host(), Plain: true})
			}
		}
	}
	s := open(t, with(empty.Host()+"/cache/team", mirror.Host()+"/team"))
	img, err := s.Fetch(t.Context(), "registry.example/team/app:1", "", nil)
	if err != nil || img.OCI.Names[0] != "registry.example/team/app:1" {
		t.Fatalf("got %+v, %v", img, err)
	}
	if asked := empty.Asked(); len(asked) == 0 || asked[0] != "GET /v2/cache/team/app/manifests/1" {
		t.Errorf("the first mirror was asked %q", asked)
	}
}

func TestARegistryThatIsAwayLeavesWhatIsHere(t *testing.T) {
	t.Parallel()
	r := registryOf(t, &ocitest.Registry{})
	away := false
	r.Answer = func(http.ResponseWriter, *http.Request) bool {
		if away {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	s := open(t, trusting(r))
	img, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	away = true
	again, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
	if err != nil || again.Digest != img.Digest {
		t.Errorf("got %v, %v, want the image that is here", again.Digest, err)
	}
}

func TestAnImageOutlivesARestartAndIsCollectedWhenNobodyNeedsIt(t *testing.T) {
	t.Parallel()
	r := registryOf(t, &ocitest.Registry{})
	s := open(t, trusting(r))
	img, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	next := reopen(t, s.cfg, nil)
	here, ok := next.Named(r.Host() + "/team/app:1")
	if !ok || here.Digest != img.Digest || here.OCI.Config.Entrypoint[0] != "/app" {
		t.Fatalf("after a restart: got %+v, %v", here, ok)
	}
	if removed, err := next.GC(t.Context(), []bundle.Digest{img.Digest}); err != nil || len(removed) > 0 {
		t.Errorf("got %v removed, %v, want what is needed kept", removed, err)
	}
	if removed, err := next.GC(t.Context(), nil); err != nil || len(removed) != 1 {
		t.Errorf("got %v removed, %v, want the image", removed, err)
	}
	if left, err := os.ReadDir(next.blobs()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	again, err := next.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
	if err == nil {
		_, err = next.Hold(again)
	}
	if err != nil {
		t.Fatal(err)
	}
	if removed, err := next.GC(t.Context(), nil); err != nil || len(removed) > 0 {
		t.Errorf("got %v removed, %v, want what an operator pulled kept", removed, err)
	}
	if err := next.Pin(again.Digest, false); err != nil {
		t.Fatal(err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	next = reopen(t, next.cfg, nil)
	if removed, err := next.GC(t.Context(), nil); err != nil || len(removed) != 1 {
		t.Errorf("got %v removed, %v, want what was unpinned", removed, err)
	}
}

func TestALoadedNameNeedsNoRegistry(t *testing.T) {
	t.Parallel()
	c := ocitest.NewContent(t)
	dir := t.TempDir()
	c.Layout(dir, "1", c.Image(runtime.GOARCH, ocitest.Object{"User": "app"}, ocitest.Layer(t, ocitest.Entry{Name: "etc/passwd", Content: []byte("app:x:7:7::/:/\n")})))
	s := open(t, func(c *Config) {
		c.OCI.HTTP = &http.Client{Transport: http.NewFileTransport(http.Dir("/nonexistent"))} // whoever asks gets 404
	})
	img, err := s.Load(t.Context(), dir, "", "registry.example/app:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Fetch(t.Context(), "registry.example/app:1", "", nil)
	if err != nil || got.Digest != img.Digest {
		t.Errorf("got %v, %v", got.Digest, err)
	}
	for user, known := range map[string]bool{"app": true, "7:7": true, "0": true, "app:staff": false, "root": false} {
		if err := s.CheckUser(img, user); (err == nil) != known {
			t.Errorf("user %q: got %v, want known %v", user, err, known)
		}
	}
}
