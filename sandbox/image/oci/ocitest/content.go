package ocitest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Media types of what is made here.
const (
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeConfig   = "application/vnd.oci.image.config.v1+json"
	TypeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// Object is a JSON object in the making.
type Object = map[string]any

// Entry of a layer. A file unless Header says otherwise.
type Entry struct {
	Name    string
	Content []byte
	Header  tar.Header // mode 0 = 0644 of a file, 0755 of a directory
}

// Layer packs entries into a tar.
func Layer(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := e.Header
		h.Name, h.Size, h.Format = e.Name, int64(len(e.Content)), tar.FormatPAX
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 && h.Typeflag == tar.TypeDir {
			h.Mode = 0o755
		} else if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_700_000_000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.Content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Content is blobs by digest, as layouts and registries hold them.
type Content struct {
	t     testing.TB
	Blobs map[string][]byte // by "sha256:…"
	Types map[string]string // media types of indexes and manifests
}

// NewContent returns nothing.
func NewContent(t testing.TB) *Content {
	return &Content{t, make(map[string][]byte), make(map[string]string)}
}

// Blob adds a blob and returns its descriptor.
func (c *Content) Blob(mediaType string, content []byte) Object {
	sum := sha256.Sum256(content)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	c.Blobs[digest] = content
	c.Types[digest] = mediaType
	return Object{"mediaType": mediaType, "digest": digest, "size": len(content)}
}

// JSON adds a document.
func (c *Content) JSON(mediaType string, v any) Object {
	c.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.Blob(mediaType, text)
}

// Image adds an image for os linux and the architecture, with gzip layers, and returns its manifest's descriptor. run is the config's own
// member config.
func (c *Content) Image(arch string, run Object, layers ...[]byte) Object {
	c.t.Helper()
	diffs, blobs := []string{}, []Object{}
	for _, l := range layers {
		sum := sha256.Sum256(l)
		diffs = append(diffs, "sha256:"+hex.EncodeToString(sum[:]))
		var buf bytes.Buffer
		z := gzip.NewWriter(&buf)
		if _, err := io.Copy(z, bytes.NewReader(l)); err != nil {
			c.t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			c.t.Fatal(err)
		}
		blobs = append(blobs, c.Blob(TypeLayer, buf.Bytes()))
	}
	config := c.JSON(TypeConfig, Object{"architecture": arch, "os": "linux", "config": run, "rootfs": Object{"type": "layers", "diff_ids": diffs}})
	d := c.JSON(TypeManifest, Object{"schemaVersion": 2, "mediaType": TypeManifest, "config": config, "layers": blobs})
	d["platform"] = Object{"os": "linux", "architecture": arch}
	return d
}

// Index adds an index of manifests.
func (c *Content) Index(manifests ...Object) Object {
	c.t.Helper()
	return c.JSON(TypeIndex, Object{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": manifests})
}

// Layout writes everything as an OCI layout whose index has one entry, called name.
func (c *Content) Layout(dir, name string, d Object) {
	c.t.Helper()
	write := func(file string, content []byte) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	for digest, content := range c.Blobs {
		write("blobs/sha256/"+digest[len("sha256:"):], content)
	}
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	entry := Object{"annotations": Object{"org.opencontainers.image.ref.name": name}}
	for k, v := range d {
		entry[k] = v
	}
	text, err := json.Marshal(Object{"schemaVersion": 2, "manifests": []Object{entry}})
	if err != nil {
		c.t.Fatal(err)
	}
	write("index.json", text)
}
