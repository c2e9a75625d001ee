package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/erofs/go-erofs"
	"github.com/klauspost/compress/zstd"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// epoch is the time of entries that say none.
var epoch = time.Unix(1_700_000_000, 123_000_000)

// here is the machine of the tests.
var here = oci.Machine{Arch: []string{"amd64"}, Variant: 7}

// The entries of layers, as tests write them.
func fileOf(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), Linkname: content}
}
func dirOf(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
func linkOf(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}
func symlinkOf(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}
func nodeOf(kind byte, name string) tar.Header {
	return tar.Header{Typeflag: kind, Name: name, Mode: 0o666, Devmajor: 1, Devminor: 3}
}

// layerOf packs entries. The content of a file is its Linkname.
func layerOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
		}
		if h.ModTime.IsZero() {
			h.ModTime = epoch
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

func digestOf(b []byte) oci.Digest { return sha256.Sum256(b) }

func gzipOf(t testing.TB, b []byte) []byte {
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

func zstdOf(t testing.TB, b []byte) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(b, nil)
}

// layout is an OCI layout in the making.
type layout struct {
	t   testing.TB
	dir string
}

func newLayout(t testing.TB) *layout {
	t.Helper()
	l := &layout{t, t.TempDir()}
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return l
}

func (l *layout) file(name string, content []byte) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), content, 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// object is a descriptor, manifest or config in the making.
type object map[string]any

func (l *layout) blob(mediaType string, content []byte) object {
	l.t.Helper()
	d := digestOf(content)
	l.file("blobs/sha256/"+d.Hex(), content)
	return object{"mediaType": mediaType, "digest": d.String(), "size": len(content)}
}

func (l *layout) json(mediaType string, v any) object {
	l.t.Helper()
	return l.blob(mediaType, jsonOf(l.t, v))
}

func jsonOf(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// configOf is an image's config.
func configOf(run object, diffs ...oci.Digest) object {
	ids := make([]string, len(diffs))
	for i, d := range diffs {
		ids[i] = d.String()
	}
	return object{"architecture": "amd64", "os": "linux", "config": run, "rootfs": object{"type": "layers", "diff_ids": ids}}
}

const (
	typeConfig = "application/vnd.oci.image.config.v1+json"
	typeLayer  = "application/vnd.oci.image.layer.v1.tar"
)

// image adds a manifest whose layers are plain, gzip and zstd in turn.
func (l *layout) image(run object, layers ...[]byte) object {
	l.t.Helper()
	var diffs []oci.Digest
	blobs := []object{}
	for i, layer := range layers {
		diffs = append(diffs, digestOf(layer))
		switch i % 3 {
		case 0:
			blobs = append(blobs, l.blob(typeLayer+"+gzip", gzipOf(l.t, layer)))
		case 1:
			blobs = append(blobs, l.blob(typeLayer, layer))
		case 2:
			blobs = append(blobs, l.blob(typeLayer+"+zstd", zstdOf(l.t, layer)))
		}
	}
	config := l.json(typeConfig, configOf(run, diffs...))
	return l.json(oci.TypeManifest, object{"schemaVersion": 2, "mediaType": oci.TypeManifest, "config": config, "layers": blobs})
}

func (l *layout) index(manifests ...object) *layout {
	l.t.Helper()
	l.file("index.json", jsonOf(l.t, object{"schemaVersion": 2, "manifests": manifests}))
	return l
}

const limit = 64 << 20

// merge reads the one image of a layout and merges it.
func merge(t testing.TB, dir string) (*oci.Image, oci.Merged, *os.File, error) {
	t.Helper()
	a, err := oci.OpenArchive(dir)
	if err != nil {
		return nil, oci.Merged{}, nil, err
	}
	defer func() { _ = a.Close() }()
	img, err := a.Image("", here, limit)
	if err != nil {
		return nil, oci.Merged{}, nil, err
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	merged, err := oci.Merge(t.Context(), img.Layers, f, oci.Limits{Bytes: limit}, nil)
	return img, merged, f, err
}

// listing prints an image: a line for each entry with type and permissions, owner, and content or target.
func listing(t testing.TB, f *os.File) string {
	t.Helper()
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	err = fs.WalkDir(img, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*erofs.Stat)
		sticky := ""
		if info.Mode()&0o1000 != 0 { // the reader has no other word for it
			sticky = " sticky"
		}
		fmt.Fprintf(&lines, "%v%s %d:%d %s", info.Mode(), sticky, st.UID, st.GID, p)
		switch {
		case info.Mode().IsRegular():
			content, err := fs.ReadFile(img, p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&lines, " = %.40s", content)
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := img.(interface {
				ReadLink(name string) (string, error)
			}).ReadLink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&lines, " -> %s", target)
		}
		for name, value := range st.Xattrs {
			fmt.Fprintf(&lines, " [%s=%s]", name, value)
		}
		lines.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines.String()
}
