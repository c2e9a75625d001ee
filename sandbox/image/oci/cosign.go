package oci

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Key is a fixed public key that images are signed with, by cosign: Ed25519 or ECDSA on P-256.
type Key struct {
	Name string // of its file, for people
	key  any
}

// ParseKey reads a PEM block PUBLIC KEY, as `cosign public-key` prints it.
func ParseKey(name string, text []byte) (Key, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return Key{}, fmt.Errorf("%s holds no PEM block PUBLIC KEY", name)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", name, err)
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
		return Key{name, k}, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return Key{name, k}, nil
		}
	}
	return Key{}, fmt.Errorf("%s: want a key of Ed25519 or ECDSA P-256", name)
}

// verify reports whether the key signed the payload.
func (k Key) verify(payload, signature []byte) bool {
	switch key := k.key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, payload, signature)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(payload)
		return ecdsa.VerifyASN1(key, sum[:], signature)
	}
	return false
}

const (
	typeSimpleSigning   = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotationSignature = "dev.cosignproject.cosign/signature"
	typeSignature       = "cosign container image signature"
	maxSignatures       = 16
	maxPayload          = 64 << 10
)

// Signed looks for a signature by one of the keys over the digest, of a manifest or an index: at the tag where cosign 2 leaves them, and among
// the image's referrers, where cosign 3 does. It returns the key's name. A payload that names another image or repository counts as no
// signature.
func (c *Client) Signed(ctx context.Context, r Reference, digest Digest, keys []Key) (string, error) {
	why := "there is no signature"
	doc, err := c.Manifest(ctx, Reference{Host: r.Host, Path: r.Path, Tag: "sha256-" + digest.Hex() + ".sig"})
	if err == nil {
		var name string
		if name, why, err = c.signedIn(ctx, r, doc, digest, keys); name != "" {
			return name, nil
		}
	}
	if err != nil && bundle.CodeOf(err) != bundle.ErrTransfer {
		return "", err
	}
	list, err := c.referrers(ctx, r, digest)
	if err != nil {
		return "", err
	}
	for _, d := range list {
		if !IsManifest(d.MediaType) || d.Digest.IsZero() {
			continue
		}
		doc, err := c.Manifest(ctx, Reference{Host: r.Host, Path: r.Path, Digest: d.Digest})
		if err != nil {
			return "", err
		}
		name, not, err := c.signedIn(ctx, r, doc, digest, keys)
		if name != "" || err != nil {
			return name, err
		}
		if not != "" {
			why = not
		}
	}
	return "", unsigned(r, digest, why)
}

// signedIn looks for a signature in the layers of a manifest. It returns the key's name, or why there is none; neither, when the manifest is
// of something else.
func (c *Client) signedIn(ctx context.Context, r Reference, doc Document, digest Digest, keys []Key) (name, why string, err error) {
	var m document
	if !IsManifest(doc.MediaType) || json.Unmarshal(doc.Text, &m) != nil {
		return "", "what stands for its signature is none", nil //nolint:nilerr // it is no signature, which is what is said
	}
	for _, l := range m.Layers[:min(len(m.Layers), maxSignatures)] {
		simple := l.MediaType == typeSimpleSigning
		if !simple && !strings.HasPrefix(l.MediaType, typeSigstoreBundle) || l.Size <= 0 || l.Size > maxPayload || l.Digest.IsZero() {
			continue
		}
		text, err := c.small(ctx, r, l)
		if err != nil {
			return "", "", err
		}
		why = "none of the trusted keys made its signature"
		payload, statement, signature := text, text, []byte(nil)
		if simple {
			signature, _ = base64.StdEncoding.DecodeString(l.Annotations[annotationSignature]) // one that is none verifies nothing
		} else {
			payload, statement, signature = sigstoreStatement(text)
		}
		for _, k := range keys {
			if !k.verify(payload, signature) {
				continue
			}
			if simple {
				why = about(statement, r, digest)
			} else {
				why = states(statement, digest)
			}
			if why == "" {
				return k.Name, "", nil
			}
		}
	}
	return "", why, nil
}

func unsigned(r Reference, digest Digest, why string) error {
	return bundle.Reject(bundle.ErrSignature, "%s@%v: %s: sign it with cosign and a key of this device's configuration", r.Repository(), digest, why)
}

// about says why a signed payload is not about the image, or "".
func about(payload []byte, r Reference, digest Digest) string {
	var p struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil || p.Critical.Type != typeSignature {
		return "what is signed is no statement about an image"
	}
	if p.Critical.Image.Digest != digest.String() {
		return fmt.Sprintf("the signature is over %.80q", p.Critical.Image.Digest)
	}
	if named, err := ParseReference(p.Critical.Identity.Reference); err != nil || named.Repository() != r.Repository() {
		return fmt.Sprintf("the signature is for %.80q", p.Critical.Identity.Reference)
	}
	return ""
}

// small reads a small blob and compares its digest.
func (c *Client) small(ctx context.Context, r Reference, d Descriptor) ([]byte, error) {
	body, _, err := c.Blob(ctx, r, d, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	text, err := io.ReadAll(io.LimitReader(body, d.Size+1))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	if int64(len(text)) != d.Size || Digest(sha256.Sum256(text)) != d.Digest {
		return nil, bundle.Reject(bundle.ErrDigest, "%s sends something else than blob %v", r.Host, d.Digest)
	}
	return text, nil
}

// Pull is an image whose documents are here and whose layers are not.
type Pull struct {
	Image    *Image
	Manifest Manifest
	From     Reference
}

// Resolve finds the image of a reference for this machine and reads its documents. known, when it says yes to a manifest's digest, ends it
// there with an Image that has nothing but its digests. limit is the largest layer in bytes.
func (c *Client) Resolve(ctx context.Context, r Reference, machine Machine, limit int64, known func(Digest) bool) (Pull, error) {
	doc, err := c.Manifest(ctx, r)
	if err != nil {
		return Pull{}, err
	}
	var index Digest
	for nested := 0; IsIndex(doc.MediaType); nested++ {
		if nested == maxNested {
			return Pull{}, bundle.Reject(bundle.ErrOCI, "indexes in indexes, more than %d deep", maxNested)
		}
		d, err := ParseIndex(doc.Text, doc.MediaType, machine)
		if err != nil {
			return Pull{}, err
		}
		if index.IsZero() {
			index = doc.Digest
		}
		below := Reference{Host: r.Host, Path: r.Path, Digest: d.Digest}
		if doc, err = c.Manifest(ctx, below); err != nil {
			return Pull{}, err
		}
		if doc.MediaType != d.MediaType || int64(len(doc.Text)) != d.Size {
			return Pull{}, bundle.Reject(bundle.ErrOCI, "manifest %v is a %.60q of %d bytes, its index says %.60q and %d", d.Digest, doc.MediaType, len(doc.Text), d.MediaType, d.Size)
		}
	}
	p := Pull{Image: &Image{Digest: doc.Digest, Index: index}, From: r}
	if known(doc.Digest) {
		return p, nil
	}
	if p.Manifest, err = ParseManifest(doc.Text, doc.MediaType, limit); err != nil {
		return Pull{}, err
	}
	config, err := c.small(ctx, r, p.Manifest.Config)
	if err != nil {
		return Pull{}, err
	}
	p.Image, err = newImage(doc.Digest, p.Manifest, config, func(Descriptor) func() (io.ReadCloser, error) { return nil })
	if err != nil {
		return Pull{}, err
	}
	p.Image.Index = index
	if r.Tag != "" {
		tagged := r
		tagged.Digest = Digest{}
		p.Image.Names = []string{tagged.String()}
	}
	return p, machine.Runs(p.Image.Config.Platform)
}

// IsTransient tells errors that another try may not have.
func IsTransient(err error) bool {
	return errors.Is(err, ErrConnection) || strings.Contains(string(bundle.CodeOf(err)), string(bundle.ErrChanged))
}
