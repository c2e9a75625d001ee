package oci

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Digest of a blob. Only SHA-256 is spoken.
type Digest = bundle.Digest

// Media types, of OCI and of Docker.
const (
	TypeIndex       = "application/vnd.oci.image.index.v1+json"
	TypeManifest    = "application/vnd.oci.image.manifest.v1+json"
	TypeDockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
	TypeDocker      = "application/vnd.docker.distribution.manifest.v2+json"
	typeConfig      = "application/vnd.oci.image.config.v1+json"
	typeDockerConf  = "application/vnd.docker.container.image.v1+json"
	typeLayer       = "application/vnd.oci.image.layer.v1.tar"
	typeDockerLayer = "application/vnd.docker.image.rootfs.diff.tar"
)

// IsIndex tells an index (a list of manifests) by its media type.
func IsIndex(mediaType string) bool { return mediaType == TypeIndex || mediaType == TypeDockerList }

// IsManifest tells the manifest of one image by its media type.
func IsManifest(mediaType string) bool { return mediaType == TypeManifest || mediaType == TypeDocker }

// Descriptor names a blob.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      Digest            `json:"digest"`
	Size        int64             `json:"size"` // bytes
	URLs        []string          `json:"urls,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *Platform         `json:"platform,omitempty"`
}

// document is an index or a manifest, which of the two is checked.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []Descriptor      `json:"manifests"`
	Config        *Descriptor       `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	FSLayers      json.RawMessage   `json:"fsLayers"` // of Docker's schema 1
	Annotations   map[string]string `json:"annotations"`
}

// parseDocument reads an index or a manifest that a descriptor of the given media type named. A body that could be read as the
// other kind is refused: two readers must not see two images.
func parseDocument(text []byte, mediaType string) (document, error) {
	var d document
	if len(text) > maxDocument {
		return d, bundle.Reject(bundle.ErrOCI, "a manifest of %d bytes, up to %d are read: build the image again", len(text), maxDocument)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, &bundle.Error{Code: bundle.ErrOCI, Why: fmt.Sprintf("a manifest is malformed: %v: build the image again", err), Err: err}
	}
	wrong := func(why string) error {
		return bundle.Reject(bundle.ErrOCI, "a document of type %q %s: build the image again", mediaType, why)
	}
	switch {
	case d.FSLayers != nil || d.SchemaVersion == 1:
		return d, bundle.Reject(bundle.ErrOCI, "the manifest is of Docker's schema 1, which nothing has written since 2017: push the image again")
	case d.SchemaVersion != 2:
		return d, wrong(fmt.Sprintf("has schemaVersion %d, want 2", d.SchemaVersion))
	case d.MediaType != "" && d.MediaType != mediaType:
		return d, wrong("calls itself " + fmt.Sprintf("%.80q", d.MediaType))
	case IsIndex(mediaType) && (d.Config != nil || d.Layers != nil):
		return d, wrong("is an index with layers")
	case IsManifest(mediaType) && d.Manifests != nil:
		return d, wrong("is a manifest with manifests")
	case IsManifest(mediaType) && d.Config == nil:
		return d, wrong("has no config")
	case !IsIndex(mediaType) && !IsManifest(mediaType):
		return d, bundle.Reject(bundle.ErrOCI, "a document of type %.80q is neither an index nor the manifest of an image", mediaType)
	case len(d.Manifests) > maxManifests:
		return d, wrong(fmt.Sprintf("lists %d manifests, up to %d are read", len(d.Manifests), maxManifests))
	case len(d.Layers) > maxLayers:
		return d, wrong(fmt.Sprintf("has %d layers, up to %d are read: squash it", len(d.Layers), maxLayers))
	}
	return d, nil
}

// check refuses descriptors that cannot be of what they stand for.
func (d Descriptor) check(what string, limit int64) error {
	switch {
	case d.Digest.IsZero():
		return bundle.Reject(bundle.ErrOCI, "%s has no digest: build the image again", what)
	case d.Size <= 0 || d.Size > limit:
		return bundle.Reject(bundle.ErrOCI, "%s %v has %d bytes, 1 to %d are allowed", what, d.Digest, d.Size, limit)
	case len(d.URLs) > 0 || strings.Contains(d.MediaType, "nondistributable") || strings.Contains(d.MediaType, "foreign"):
		return bundle.Reject(bundle.ErrOCI, "%s %v is kept elsewhere and not part of the image: build it with its layers inside", what, d.Digest)
	}
	return nil
}

// manifest is a checked document of one image.
func (d document) manifest(limit int64) (Manifest, error) {
	m := Manifest{Config: *d.Config, Layers: d.Layers}
	if err := m.Config.check("the config", maxDocument); err != nil {
		return m, err
	}
	if t := m.Config.MediaType; t != typeConfig && t != typeDockerConf {
		return m, bundle.Reject(bundle.ErrOCI, "the manifest is of a %.80q, not of an image", t)
	}
	for _, l := range m.Layers {
		if err := l.check("layer", limit); err != nil {
			return m, err
		}
		if _, err := compressionOf(l.MediaType); err != nil {
			return m, err
		}
	}
	return m, nil
}

// Manifest is what one image is made of. Layers are in their order, the lowest first.
type Manifest struct {
	Config Descriptor
	Layers []Descriptor
}

// Size is what has to be transferred, in bytes.
func (m Manifest) Size() int64 {
	sum := m.Config.Size
	for _, l := range m.Layers {
		sum += l.Size
	}
	return sum
}

// ParseManifest reads and checks the manifest of one image. limit is the largest layer in bytes.
func ParseManifest(text []byte, mediaType string, limit int64) (Manifest, error) {
	d, err := parseDocument(text, mediaType)
	if err != nil {
		return Manifest{}, err
	}
	if !IsManifest(mediaType) {
		return Manifest{}, bundle.Reject(bundle.ErrOCI, "an index stands where the manifest of an image is wanted")
	}
	return d.manifest(limit)
}

// ParseIndex reads an index and returns the manifest or index in it that fits the machine best.
func ParseIndex(text []byte, mediaType string, machine Machine) (Descriptor, error) {
	d, err := parseDocument(text, mediaType)
	if err != nil {
		return Descriptor{}, err
	}
	if !IsIndex(mediaType) {
		return Descriptor{}, bundle.Reject(bundle.ErrOCI, "a manifest stands where an index is wanted")
	}
	return machine.choose(d.Manifests)
}

// compression of a layer.
type compression string

const (
	plain    compression = ""
	gzipped  compression = "gzip"
	zstdForm compression = "zstd"
)

func compressionOf(mediaType string) (compression, error) {
	for _, base := range []string{typeLayer, typeDockerLayer} {
		rest, ok := strings.CutPrefix(mediaType, base)
		if !ok {
			continue
		}
		c := compression(strings.TrimLeft(rest, "+."))
		if slices.Contains([]compression{plain, gzipped, zstdForm}, c) {
			return c, nil
		}
	}
	return plain, bundle.Reject(bundle.ErrOCI, "a layer of type %.80q is not known here: build the image with gzip or zstd layers", mediaType)
}
