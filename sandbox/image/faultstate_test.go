package image

import (
	"context"
	"crypto/tls"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// counter counts the bytes that a server sends.
type counter struct {
	next http.Handler
	sent atomic.Int64
	busy sync.WaitGroup // answers under way
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.busy.Add(1)
	defer c.busy.Done()
	c.next.ServeHTTP(&cutWriter{w, math.MaxInt, &c.sent}, r)
}

// ca asks a server for its certificate.
func (c *counter) ca(t *testing.T, base string, client *http.Client) []byte {
	t.Helper()
	tr, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("transport is a %T", client.Transport)
	}
	d := tls.Dialer{Config: tr.TLSClientConfig}
	conn, err := d.DialContext(context.WithoutCancel(t.Context()), "tcp", strings.TrimSuffix(strings.TrimPrefix(base, "https://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	c2, ok := conn.(*tls.Conn)
	if !ok {
		t.Fatalf("connection is a %T", conn)
	}
	return certificate(c2.ConnectionState().PeerCertificates[0].Raw)
}

func copyAll(w io.Writer, r io.Reader) (int64, error) { return io.Copy(w, r) }

// goesOn opens the directory after a disturbance: it is in one of the documented states, doing the act again succeeds, and of what it
// installs only that comes over the network which is not there yet.
func (b *bed) goesOn(after string) {
	b.t.Helper()
	b.documented(after)
	s := b.open(nil)
	b.sent.busy.Wait() // for what the disturbed one had asked
	before, most := b.sent.sent.Load(), b.missing(s)
	if err := b.act.do(b.t, s, b.base); err != nil {
		b.t.Errorf("%s: again: %v", after, err)
	}
	if came := b.sent.sent.Load() - before; b.act.ref != "" && came > most {
		b.t.Errorf("%s: %d bytes came then, want at most the %d that were missing", after, came, most)
	}
	for _, img := range s.List() {
		if err := s.Verify(b.t.Context(), img); err != nil {
			b.t.Errorf("%s: %v", after, err)
		}
	}
	if b.act.ref != "" && len(s.List()) == 0 {
		b.t.Errorf("%s: nothing is installed", after)
	}
	if err := s.Close(); err != nil {
		b.t.Error(err)
	}
	b.documented(after + ", and again")
}

// missing is what may come over the network for the act: what precedes the payload, and the chunks or layers that are not in the stage.
func (b *bed) missing(s *Store) int64 {
	b.t.Helper()
	const start = firstBytes + 8<<10 // with the index, or manifests and a config, and a byte of a delta
	if strings.HasPrefix(b.act.ref, "team/") {
		if _, ok := s.Named(strings.TrimPrefix(b.base, "https://") + b.act.ref); ok {
			return start
		}
		sum := int64(start)
		for _, size := range b.layers(s) {
			sum += size
		}
		return sum
	}
	spb := little(b.t).of[2]
	head, _ := imageOf(b.t, spb)
	if _, ok := s.Lookup(head.Digest); ok {
		return firstBytes // a URL has to be asked what is there
	}
	if _, err := os.Lstat(s.imagePath(head.Manifest.Image.Digest)); err == nil {
		return start
	}
	p := newPart(indexIn(b.t, spb))
	if f, err := os.Open(s.partPath(head.Manifest.Image.Digest)); err == nil {
		if err := p.survey(b.t.Context(), f); err != nil {
			b.t.Fatal(err)
		}
		_ = f.Close()
	}
	d := s.donors(&head.Manifest, p)
	sum := int64(start)
	for i, c := range p.index {
		if !p.have[i] && !d.has(c) {
			sum += int64(c.Stored)
		}
	}
	return sum
}

// layers are the missing bytes of each layer.
func (b *bed) layers(s *Store) []int64 {
	b.t.Helper()
	ref, err := oci.ParseReference(strings.TrimPrefix(b.base, "https://") + b.act.ref)
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := s.registries.Resolve(b.t.Context(), ref, s.cfg.Machine.oci(), s.layerLimit(), func(bundle.Digest) bool { return false })
	if err != nil {
		b.t.Fatal(err)
	}
	b.sent.sent.Store(0)
	var list []int64
	for _, l := range p.Manifest.Layers {
		size := l.Size
		if info, err := os.Lstat(s.blobPath(l.Digest)); err == nil {
			size -= min(size, info.Size())
		}
		list = append(list, size)
	}
	return list
}

// documented wants nothing in the state directory but what the package doc names, and no bundle without its image.
func (b *bed) documented(after string) {
	b.t.Helper()
	known := map[string][]string{
		".":     {"blobs", "stage", "lock", "floors.json", "notes.json", "metered.json"},
		"blobs": {metaSuffix, ociSuffix, imageSuffix},
		"stage": {partSuffix, resumeSuffix, tailSuffix, ".spd", repairSuffix, blobSuffix, mergeSuffix},
	}
	for dir, suffixes := range known {
		for _, name := range names(b.t, filepath.Join(b.cfg.Dir, dir)) {
			ok := false
			for _, suffix := range suffixes {
				ok = ok || strings.HasSuffix(strings.TrimSuffix(name, newSuffix), suffix)
			}
			if !ok {
				b.t.Errorf("%s: %s is in %s", after, name, dir)
			}
		}
	}
	for _, name := range names(b.t, filepath.Join(b.cfg.Dir, "blobs")) {
		if strings.HasSuffix(name, metaSuffix) {
			r, err := readMeta(filepath.Join(b.cfg.Dir, "blobs", name))
			if err == nil {
				_, err = os.Lstat(filepath.Join(b.cfg.Dir, "blobs", r.manifest.Image.Digest.Hex()+imageSuffix))
			}
			if err != nil {
				b.t.Errorf("%s: %s: %v, want it whole, with its image", after, name, err)
			}
		}
	}
}
