package image

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// release is one version of a module: 1.3 MiB of which version changes the first and the middle file.
func release(t testing.TB, version uint64) []byte {
	t.Helper()
	return bundletest.Build(t, bundletest.Options{
		Files: map[string]string{
			"bin/run": "#!/bin/sh\necho hello\n",
			"a/conf":  fmt.Sprintf("version = %d\n%s", version, noise(3000, byte(version))),
			"b/data":  string(noise(600<<10, 5)),
			"c/lib":   string(noise(20<<10, 6)) + fmt.Sprint("changed in ", version) + string(noise(20<<10, 7)),
			"d/data":  string(noise(600<<10, 8)),
		},
		Manifest: func(m *bundle.Manifest) { m.Sequence, m.Version = version, fmt.Sprint(version) },
	})
}

// releases are the first three, and the deltas between them by name: made once, since comparing takes its time.
type releases struct {
	of     [4][]byte // from 1 on
	deltas map[[2]int]namedDelta
}

type namedDelta struct {
	name string
	spd  []byte
}

var threeReleases = struct { //nolint:gochecknoglobals // made once for all tests
	once sync.Once
	releases
}{}

func three(t testing.TB) releases {
	t.Helper()
	threeReleases.once.Do(func() {
		r := releases{deltas: make(map[[2]int]namedDelta)}
		for v := uint64(1); v < 4; v++ {
			r.of[v] = release(t, v)
		}
		for _, pair := range [][2]int{{1, 2}, {1, 3}, {2, 1}} {
			name, spd := deltaBetween(t, r.of[pair[0]], r.of[pair[1]])
			r.deltas[pair] = namedDelta{name, spd}
		}
		threeReleases.releases = r
	})
	return threeReleases.releases
}

// web serves files by name as every web server does, and counts the bytes and requests of each.
type web struct {
	mu       sync.Mutex
	files    map[string][]byte
	bytes    map[string]int64
	requests map[string]int
	cut      func(name string) (bytes int, then func()) // of body until the connection ends; negative = never
	etag     bool
	read     atomic.Int64 // by the client, whatever it was
}

func newWeb(files map[string][]byte) *web {
	return &web{files: files, bytes: make(map[string]int64), requests: make(map[string]int), etag: true}
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	w.mu.Lock()
	b, ok := w.files[name]
	w.requests[name]++
	left, then := -1, func() {}
	if w.cut != nil {
		left, then = w.cut(name)
	}
	w.mu.Unlock()
	if !ok {
		http.NotFound(rw, r)
		return
	}
	if w.etag {
		rw.Header().Set("ETag", fmt.Sprintf(`"%x"`, bundletestSum(b)))
	}
	var sent atomic.Int64
	defer func() {
		w.mu.Lock()
		w.bytes[name] += sent.Load()
		w.mu.Unlock()
		if left >= 0 && sent.Load() >= int64(left) {
			then()
		}
	}()
	most := left
	if left < 0 {
		most = math.MaxInt
	}
	http.ServeContent(&cutWriter{rw, most, &sent}, r, name, time.Time{}, bytes.NewReader(b))
}

func bundletestSum(b []byte) uint32 {
	var h uint32
	for _, c := range b {
		h = h*31 + uint32(c)
	}
	return h
}

func (w *web) total() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var sum int64
	for _, n := range w.bytes {
		sum += n
	}
	return sum
}

// on starts the web and a store that trusts it.
func (w *web) on(t *testing.T, change func(*Config)) (base string, s *Store) {
	t.Helper()
	url, s := server(t, w.ServeHTTP, change)
	transport, ok := s.cfg.HTTP.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("transport is a %T", s.cfg.HTTP.Transport)
	}
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return countedConn{c, &w.read}, err
	}
	return strings.TrimSuffix(url, "x.spb"), s
}

type countedConn struct {
	net.Conn
	read *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// imageOf is the image in a bundle.
func imageOf(t testing.TB, spb []byte) (bundle.Head, []byte) {
	t.Helper()
	var img bytes.Buffer
	head, err := bundle.ExtractUnverified(&img, bytes.NewReader(spb), nil)
	if err != nil {
		t.Fatal(err)
	}
	return head, img.Bytes()
}

// indexIn is the index in a bundle.
func indexIn(t testing.TB, spb []byte) bundle.Index {
	t.Helper()
	r := bytes.NewReader(spb)
	head, err := bundle.ReadHeadUnverified(r)
	if err != nil {
		t.Fatal(err)
	}
	index, err := head.ReadIndex(r)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// deltaBetween makes the .spd that leads from one bundle to another, and its name.
func deltaBetween(t testing.TB, old, next []byte) (string, []byte) {
	t.Helper()
	oldHead, oldImage := imageOf(t, old)
	newHead, newImage := imageOf(t, next)
	h := bundle.DeltaHeader{From: oldHead.Manifest.Image.Digest, To: newHead.Manifest.Image.Digest, Size: newHead.Manifest.Image.Size}
	var spd bytes.Buffer
	if err := bundle.WriteDelta(&spd, h, oldImage, newImage, indexIn(t, next)); err != nil {
		t.Fatal(err)
	}
	return bundle.DeltaName(h.From, h.To), spd.Bytes()
}

func verified(t testing.TB, s *Store, img Image, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("fetch: %v", err)
		return
	}
	if err := s.Verify(t.Context(), img); err != nil {
		t.Errorf("verify: %v", err)
	}
	if left := names(t, s.stage()); len(left) != 0 {
		t.Errorf("left in the stage: %v", left)
	}
}
