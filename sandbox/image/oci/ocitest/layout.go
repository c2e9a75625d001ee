package ocitest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Epoch is the time of entries that say none.
func Epoch() time.Time { return time.Unix(1_700_000_000, 123_000_000) }

// Arch is the architecture of a [Layout]'s images.
const Arch = "amd64"

// File is an entry whose content stands where another's target does: [Tar] moves it.
func File(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), Linkname: content}
}

// Dir is a directory.
func Dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }

// Link is a hard link.
func Link(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

// Symlink is a symbolic link.
func Symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}

// Node is a device, a pipe or a socket.
func Node(kind byte, name string) tar.Header {
	return tar.Header{Typeflag: kind, Name: name, Mode: 0o666, Devmajor: 1, Devminor: 3}
}

// Tar packs entries into a layer.
func Tar(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
		}
		if h.ModTime.IsZero() {
			h.ModTime = Epoch()
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Sum is the digest of bytes.
func Sum(b []byte) bundle.Digest { return sha256.Sum256(b) }

// Gzip compresses.
func Gzip(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Zstd compresses.
func Zstd(t testing.TB, b []byte) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(b, nil)
}

// Layout is an OCI layout in the making, on disk, whose documents may be anything.
type Layout struct {
	Path string

	t testing.TB
}

// NewLayout returns one without an index.
func NewLayout(t testing.TB) *Layout {
	t.Helper()
	l := &Layout{t.TempDir(), t}
	if err := os.MkdirAll(filepath.Join(l.Path, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.File("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return l
}

// File writes a file.
func (l *Layout) File(name string, content []byte) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.Path, name), content, 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// Blob adds a blob and returns its descriptor.
func (l *Layout) Blob(mediaType string, content []byte) Object {
	l.t.Helper()
	d := Sum(content)
	l.File("blobs/sha256/"+d.Hex(), content)
	return Object{"mediaType": mediaType, "digest": d.String(), "size": len(content)}
}

// JSON adds a document.
func (l *Layout) JSON(mediaType string, v any) Object {
	l.t.Helper()
	return l.Blob(mediaType, JSON(l.t, v))
}

// JSON prints a document.
func JSON(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Config is an image's config.
func Config(run Object, diffs ...bundle.Digest) Object {
	ids := make([]string, len(diffs))
	for i, d := range diffs {
		ids[i] = d.String()
	}
	return Object{"architecture": Arch, "os": "linux", "config": run, "rootfs": Object{"type": "layers", "diff_ids": ids}}
}

// TypeTar is a layer that is not compressed; "+gzip" and "+zstd" behind it are.
const TypeTar = "application/vnd.oci.image.layer.v1.tar"

// Image adds a manifest whose layers are plain, gzip and zstd in turn.
func (l *Layout) Image(run Object, layers ...[]byte) Object {
	l.t.Helper()
	var diffs []bundle.Digest
	blobs := []Object{}
	for i, layer := range layers {
		diffs = append(diffs, Sum(layer))
		switch i % 3 {
		case 0:
			blobs = append(blobs, l.Blob(TypeTar+"+gzip", Gzip(l.t, layer)))
		case 1:
			blobs = append(blobs, l.Blob(TypeTar, layer))
		case 2:
			blobs = append(blobs, l.Blob(TypeTar+"+zstd", Zstd(l.t, layer)))
		}
	}
	config := l.JSON(TypeConfig, Config(run, diffs...))
	return l.JSON(TypeManifest, Object{"schemaVersion": 2, "mediaType": TypeManifest, "config": config, "layers": blobs})
}

// Index writes the index.
func (l *Layout) Index(manifests ...Object) *Layout {
	l.t.Helper()
	l.File("index.json", JSON(l.t, Object{"schemaVersion": 2, "manifests": manifests}))
	return l
}
