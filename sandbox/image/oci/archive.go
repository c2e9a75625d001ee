package oci

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Image is one image, chosen and checked as far as its documents go.
type Image struct {
	Digest Digest   // of its manifest; of its config where an archive has no manifest
	Index  Digest   // of the index it was chosen from, or zero
	Names  []string // full references by tag that it came with
	Config Config
	Layers []Layer // the lowest first
}

// newImage joins a manifest and its config.
func newImage(digest Digest, m Manifest, config []byte, open func(Descriptor) func() (io.ReadCloser, error)) (*Image, error) {
	if Digest(sha256.Sum256(config)) != m.Config.Digest {
		return nil, bundle.Reject(bundle.ErrDigest, "the config is not the %v that the manifest names: fetch the image again", m.Config.Digest)
	}
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	if len(c.DiffIDs) != len(m.Layers) {
		return nil, bundle.Reject(bundle.ErrOCI, "the manifest has %d layers and the config %d: build the image again", len(m.Layers), len(c.DiffIDs))
	}
	img := &Image{Digest: digest, Config: c}
	for i, l := range m.Layers {
		form, err := compressionOf(l.MediaType)
		if err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, Layer{Blob: l, DiffID: c.DiffIDs[i], Open: open(l), form: form})
	}
	return img, nil
}

// Archive is an OCI layout or what `docker save` writes.
type Archive struct {
	files files
	where string
}

// files opens regular files of an archive by slash path.
type files interface {
	open(name string) (io.ReadCloser, error)
	Close() error
}

// OpenArchive opens a directory or an uncompressed tar file. Nothing in it is believed.
func OpenArchive(name string) (*Archive, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	a := &Archive{where: name}
	switch {
	case info.IsDir():
		root, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		a.files = dirFiles{root}
	case info.Mode().IsRegular():
		if a.files, err = openTar(name); err != nil {
			return nil, err
		}
	default:
		return nil, bundle.Reject(bundle.ErrOCI, "%s is neither a directory nor a file", name)
	}
	return a, nil
}

// Close lets go of the archive; layers cannot be opened any more.
func (a *Archive) Close() error { return a.files.Close() }

// Image chooses an image for the machine. want, when not empty, is a name or a tag of one of several. limit is the largest layer in bytes.
func (a *Archive) Image(want string, machine Machine, limit int64) (*Image, error) {
	text, err := a.document("index.json")
	var img *Image
	switch {
	case err == nil:
		img, err = a.layout(text, want, machine, limit)
	case errors.Is(err, os.ErrNotExist):
		if text, err = a.document("manifest.json"); err == nil {
			img, err = a.saved(text, want)
		} else if errors.Is(err, os.ErrNotExist) {
			err = bundle.Reject(bundle.ErrOCI, "it has neither index.json nor manifest.json: want an OCI layout, or what docker save writes")
		}
	}
	if err == nil {
		err = machine.Runs(img.Config.Platform)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.where, err)
	}
	return img, nil
}

// document reads a small file of the archive.
func (a *Archive) document(name string) ([]byte, error) {
	f, err := a.files.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(text) > maxDocument {
		return nil, bundle.Reject(bundle.ErrOCI, "%.100q has more than %d bytes", name, maxDocument)
	}
	return text, nil
}

// blob reads a small blob and compares its digest.
func (a *Archive) blob(d Descriptor) ([]byte, error) {
	text, err := a.document(blobPath(d.Digest))
	if errors.Is(err, os.ErrNotExist) {
		return nil, bundle.Reject(bundle.ErrOCI, "blob %v is missing: copy the archive again", d.Digest)
	}
	if err == nil && (int64(len(text)) != d.Size || Digest(sha256.Sum256(text)) != d.Digest) {
		err = bundle.Reject(bundle.ErrDigest, "blob %v is not what its name says: copy the archive again", d.Digest)
	}
	return text, err
}

func blobPath(d Digest) string { return "blobs/sha256/" + d.Hex() }

const (
	annotationName  = "org.opencontainers.image.ref.name"
	annotationImage = "io.containerd.image.name"
)

// layout reads an OCI layout.
func (a *Archive) layout(index []byte, want string, machine Machine, limit int64) (*Image, error) {
	d, err := parseDocument(index, TypeIndex)
	if err != nil {
		return nil, err
	}
	top := d.Manifests
	if want != "" {
		top = nil
		for _, m := range d.Manifests {
			if named(m, want) {
				top = append(top, m)
			}
		}
	}
	names := map[string]bool{}
	for _, m := range top {
		names[m.Annotations[annotationName]+" "+m.Annotations[annotationImage]] = true
	}
	if len(names) > 1 || len(top) == 0 {
		return nil, bundle.Reject(bundle.ErrOCI, "%d of its %d images are called %q: say which one is meant", len(top), len(d.Manifests), want)
	}
	chosen, err := machine.choose(top)
	if err != nil {
		return nil, err
	}
	first := chosen
	var from Digest
	for nested := 0; IsIndex(chosen.MediaType); nested++ {
		if nested == maxNested {
			return nil, bundle.Reject(bundle.ErrOCI, "indexes in indexes, more than %d deep", maxNested)
		}
		text, err := a.blob(chosen)
		if err != nil {
			return nil, err
		}
		from = chosen.Digest
		if chosen, err = ParseIndex(text, chosen.MediaType, machine); err != nil {
			return nil, err
		}
	}
	img, err := a.manifest(chosen, limit)
	if err != nil {
		return nil, err
	}
	img.Index = from
	for _, key := range []string{annotationImage, annotationName} {
		if r, err := ParseReference(first.Annotations[key]); err == nil && strings.Contains(first.Annotations[key], "/") {
			img.Names = append(img.Names, r.String())
			break
		}
	}
	return img, nil
}

// named tells whether a manifest of a layout has the name, in full or as the tag alone.
func named(d Descriptor, want string) bool {
	full, err := ParseReference(want)
	for _, key := range []string{annotationName, annotationImage} {
		name := d.Annotations[key]
		if name == want {
			return true
		}
		if r, rerr := ParseReference(name); err == nil && rerr == nil && name != "" && r == full {
			return true
		}
	}
	return false
}

func (a *Archive) manifest(d Descriptor, limit int64) (*Image, error) {
	text, err := a.blob(d)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(text, d.MediaType, limit)
	if err != nil {
		return nil, err
	}
	config, err := a.blob(m.Config)
	if err != nil {
		return nil, err
	}
	return newImage(d.Digest, m, config, func(l Descriptor) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return a.files.open(blobPath(l.Digest)) }
	})
}

// savedImage is one element of the manifest.json of `docker save`.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// saved reads what `docker save` wrote before it wrote OCI layouts.
func (a *Archive) saved(text []byte, want string) (*Image, error) {
	var list []savedImage
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, &bundle.Error{Code: bundle.ErrOCI, Why: fmt.Sprintf("manifest.json is malformed: %v: save the image again", err), Err: err}
	}
	var found []savedImage
	for _, s := range list {
		if want == "" || s.called(want) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return nil, bundle.Reject(bundle.ErrOCI, "%d of its %d images are called %q: say which one is meant", len(found), len(list), want)
	}
	s := found[0]
	config, err := a.document(s.Config)
	if err != nil {
		return nil, fmt.Errorf("config %.100q: %w", s.Config, err)
	}
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	if len(c.DiffIDs) != len(s.Layers) {
		return nil, bundle.Reject(bundle.ErrOCI, "manifest.json has %d layers and the config %d: save the image again", len(s.Layers), len(c.DiffIDs))
	}
	img := &Image{Digest: sha256.Sum256(config), Config: c}
	for i, name := range s.Layers {
		form, err := a.sniff(name)
		if err != nil {
			return nil, fmt.Errorf("layer %.100q: %w", name, err)
		}
		open := func() (io.ReadCloser, error) { return a.files.open(name) }
		img.Layers = append(img.Layers, Layer{DiffID: c.DiffIDs[i], Open: open, form: form})
	}
	for _, tag := range s.RepoTags {
		if r, err := ParseReference(tag); err == nil {
			img.Names = append(img.Names, r.String())
		}
	}
	return img, nil
}

func (s savedImage) called(want string) bool {
	full, err := ParseReference(want)
	for _, tag := range s.RepoTags {
		if r, rerr := ParseReference(tag); tag == want || err == nil && rerr == nil && r == full {
			return true
		}
	}
	return false
}

// sniff tells the compression of a layer that has no media type.
func (a *Archive) sniff(name string) (compression, error) {
	f, err := a.files.open(name)
	if err != nil {
		return plain, err
	}
	defer func() { _ = f.Close() }()
	return sniff(f)
}

func sniff(r io.Reader) (compression, error) {
	head := make([]byte, 4)
	n, err := io.ReadFull(r, head)
	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipped, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstdForm, nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return plain, bundle.Reject(bundle.ErrOCI, "is empty: save the image again")
	}
	return plain, err
}

// dirFiles is an archive unpacked into a directory. It is never left, and no link in it is followed.
type dirFiles struct{ *os.File }

func (d dirFiles) open(name string) (io.ReadCloser, error) {
	fd, err := unix.Openat2(int(d.Fd()), path.Clean(name), &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, bundle.Reject(bundle.ErrOCI, "%.100q is no regular file", name)
	}
	return f, nil
}
