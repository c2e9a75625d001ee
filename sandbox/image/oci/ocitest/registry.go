package ocitest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Registry serves Content by the distribution API on loopback, by TLS unless Plain.
type Registry struct {
	Content *Content
	Tags    map[string]string // digest by "repository:tag"
	// Referrers are manifests by the digest of their subject. nil: the registry knows of no such thing.
	Referrers map[string][]Object
	Plain     bool
	User      string // "" = everybody may read
	Pass      string
	Bearer    bool // tokens are had at /token, by the login above
	// Answer, when not nil, may answer a request in the place of the registry; it says whether it did. It comes after the check of who asks.
	Answer func(w http.ResponseWriter, r *http.Request) bool
	// Cut, when positive, is after how many bytes of blobs in total each connection's answer breaks off; it is set anew by the test.
	Cut atomic.Int64

	Sent atomic.Int64 // bytes of blobs

	mu     sync.Mutex
	asked  []string // method and path of every request, with "as USER" when it said who asks
	server *httptest.Server
}

// Start serves until the test ends. Host is where.
func (r *Registry) Start(t testing.TB) *Registry {
	t.Helper()
	if r.Plain {
		r.server = httptest.NewServer(http.HandlerFunc(r.serve))
	} else {
		r.server = httptest.NewTLSServer(http.HandlerFunc(r.serve))
	}
	t.Cleanup(r.server.Close)
	return r
}

// Host is host:port.
func (r *Registry) Host() string { return r.server.Listener.Addr().String() }

// URL of the server.
func (r *Registry) URL() string { return r.server.URL }

// Client trusts the registry's certificate.
func (r *Registry) Client() *http.Client { return r.server.Client() }

// Certificate is what it shows, as PEM needs it.
func (r *Registry) Certificate() []byte { return r.server.Certificate().Raw }

// Asked lists the requests so far.
func (r *Registry) Asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.asked...)
}

// token is what the token endpoint gives.
const token = "a-token"

func (r *Registry) serve(w http.ResponseWriter, q *http.Request) {
	line := q.Method + " " + q.URL.Path
	if auth := q.Header.Get("Authorization"); auth != "" {
		line += " as " + strings.Fields(auth)[0]
	}
	r.mu.Lock()
	r.asked = append(r.asked, line)
	r.mu.Unlock()
	if q.URL.Path == "/token" {
		if user, pass, _ := q.BasicAuth(); r.User != "" && (user != r.User || pass != r.Pass) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"token":%q}`, token)
		return
	}
	if !r.allowed(w, q) || r.Answer != nil && r.Answer(w, q) {
		return
	}
	path, ok := strings.CutPrefix(q.URL.Path, "/v2/")
	if repository, what, found := strings.Cut(path, "/manifests/"); ok && found {
		r.manifest(w, repository, what)
		return
	}
	if _, digest, found := strings.Cut(path, "/referrers/"); ok && found && r.Referrers != nil {
		w.Header().Set("Content-Type", TypeIndex)
		_ = json.NewEncoder(w).Encode(Object{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": r.Referrers[digest]}) // the asker may be gone
		return
	}
	if _, digest, found := strings.Cut(path, "/blobs/"); ok && found {
		r.blob(w, q, digest)
		return
	}
	w.WriteHeader(http.StatusNotFound)
}

func (r *Registry) allowed(w http.ResponseWriter, q *http.Request) bool {
	user, pass, _ := q.BasicAuth()
	switch {
	case r.Bearer:
		if q.Header.Get("Authorization") == "Bearer "+token {
			return true
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test",scope="repository:x:pull"`, r.URL()))
	case r.User == "", user == r.User && pass == r.Pass:
		return true
	default:
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	}
	w.WriteHeader(http.StatusUnauthorized)
	return false
}

func (r *Registry) manifest(w http.ResponseWriter, repository, what string) {
	digest := what
	if !strings.Contains(what, ":") {
		digest = r.Tags[repository+":"+what]
	}
	content, ok := r.Content.Blobs[digest]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", r.Content.Types[digest])
	w.Header().Set("Docker-Content-Digest", digest)
	_, _ = w.Write(content) // the asker may be gone
}

func (r *Registry) blob(w http.ResponseWriter, q *http.Request, digest string) {
	content, ok := r.Content.Blobs[digest]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	start := 0
	if text, ok := strings.CutPrefix(q.Header.Get("Range"), "bytes="); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(text, "-"))
		if err != nil || n >= len(content) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		start = n
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(content)-1, len(content)))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(content)-start))
	if start > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	for rest := content[start:]; len(rest) > 0; {
		n := min(len(rest), 16<<10)
		if cut := r.Cut.Load(); cut > 0 {
			left := cut - r.Sent.Load()
			if left <= 0 {
				panic(http.ErrAbortHandler)
			}
			n = min(n, int(left))
		}
		m, err := w.Write(rest[:n])
		r.Sent.Add(int64(m))
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		if err != nil {
			return
		}
		rest = rest[m:]
	}
}

// Digest of bytes.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
