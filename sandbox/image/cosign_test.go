package image

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// signer signs as cosign does.
type signer struct{ key *ecdsa.PrivateKey }

func newSigner(t *testing.T) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key}
}

func (s signer) public(t *testing.T) oci.Key {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	key, err := oci.ParseKey("cosign.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign puts a signature for a digest beside the image with the digest at.
func (s signer) sign(t *testing.T, r *ocitest.Registry, at, digest, repository string) {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, repository, digest)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	layer := r.Content.Blob("application/vnd.dev.cosign.simplesigning.v1+json", payload)
	layer["annotations"] = ocitest.Object{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)}
	m := r.Content.JSON(ocitest.TypeManifest, ocitest.Object{"schemaVersion": 2, "mediaType": ocitest.TypeManifest, "config": r.Content.JSON(ocitest.TypeConfig, ocitest.Object{}), "layers": []ocitest.Object{layer}})
	r.Tags["team/app:"+strings.Replace(at, ":", "-", 1)+".sig"] = m["digest"].(string)
}

// bundled makes the manifest of a referrer as cosign 3 leaves it: a bundle with a signed statement of a kind about a digest.
func (s signer) bundled(t *testing.T, r *ocitest.Registry, subject, digest, kind string) ocitest.Object {
	t.Helper()
	statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q},"annotations":{}}],"predicateType":%q,"predicate":{}}`, strings.TrimPrefix(digest, "sha256:"), kind)
	const payloadType = "application/vnd.in-toto+json"
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement))
	signature, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	const mediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	layer := r.Content.JSON(mediaType, ocitest.Object{
		"mediaType": mediaType, "verificationMaterial": ocitest.Object{"publicKey": ocitest.Object{"hint": "x"}, "tlogEntries": []any{}},
		"dsseEnvelope": ocitest.Object{"payload": statement, "payloadType": payloadType, "signatures": []ocitest.Object{{"sig": signature}}},
	})
	return r.Content.JSON(ocitest.TypeManifest, ocitest.Object{
		"schemaVersion": 2, "mediaType": ocitest.TypeManifest, "artifactType": mediaType, "layers": []ocitest.Object{layer},
		"config":  r.Content.Blob("application/vnd.oci.empty.v1+json", []byte("{}")),
		"subject": ocitest.Object{"mediaType": ocitest.TypeManifest, "digest": subject, "size": len(r.Content.Blobs[subject])},
	})
}

// signKind is what cosign calls a signature among statements.
const signKind = "https://sigstore.dev/cosign/sign/v1"

// signing is what stands beside an image in its registry.
type signing struct {
	sign func(t *testing.T, r *ocitest.Registry, digest string)
	ref  string
	want bundle.Code
}

// signings are row J4, and what is no attack.
func signings(t *testing.T, good signer) map[string]signing {
	t.Helper()
	stranger := newSigner(t)
	return map[string]signing{
		"signed by the key": {func(t *testing.T, r *ocitest.Registry, d string) { good.sign(t, r, d, d, r.Host()+"/team/app") }, "/team/app:1", ""},
		"an index that is signed": {func(t *testing.T, r *ocitest.Registry, _ string) {
			d := r.Tags["team/app:multi"]
			good.sign(t, r, d, d, r.Host()+"/team/app")
		}, "/team/app:multi", ""},
		"by a bundle among the referrers": {func(t *testing.T, r *ocitest.Registry, d string) {
			r.Referrers = map[string][]ocitest.Object{d: {good.bundled(t, r, d, d, "https://cyclonedx.org/bom"), good.bundled(t, r, d, d, signKind)}}
		}, "/team/app:1", ""},
		"by a bundle in the list at the tag": {func(t *testing.T, r *ocitest.Registry, d string) {
			r.Tags["team/app:"+strings.Replace(d, ":", "-", 1)] = r.Content.Index(good.bundled(t, r, d, d, signKind))["digest"].(string)
		}, "/team/app:1", ""},
		"by a referrer in the form of cosign 2": {func(t *testing.T, r *ocitest.Registry, d string) {
			good.sign(t, r, d, d, r.Host()+"/team/app")
			tag := "team/app:" + strings.Replace(d, ":", "-", 1) + ".sig"
			r.Referrers = map[string][]ocitest.Object{d: {{"mediaType": ocitest.TypeManifest, "digest": r.Tags[tag], "size": len(r.Content.Blobs[r.Tags[tag]])}}}
			delete(r.Tags, tag)
		}, "/team/app:1", ""},
		"J4 only an attestation": {func(t *testing.T, r *ocitest.Registry, d string) {
			r.Referrers = map[string][]ocitest.Object{d: {good.bundled(t, r, d, d, "https://cyclonedx.org/bom")}}
		}, "/team/app:1", bundle.ErrSignature},
		"J4 a bundle for another": {func(t *testing.T, r *ocitest.Registry, d string) {
			r.Referrers = map[string][]ocitest.Object{d: {good.bundled(t, r, d, r.Tags["team/app:multi"], signKind)}}
		}, "/team/app:1", bundle.ErrSignature},
		"J4 a bundle of another key": {func(t *testing.T, r *ocitest.Registry, d string) {
			r.Referrers = map[string][]ocitest.Object{d: {stranger.bundled(t, r, d, d, signKind)}}
		}, "/team/app:1", bundle.ErrSignature},
		"J4 ten thousand referrers": {func(t *testing.T, r *ocitest.Registry, d string) {
			one := stranger.bundled(t, r, d, d, signKind)
			r.Referrers = map[string][]ocitest.Object{d: slices.Repeat([]ocitest.Object{one}, 10_000)}
		}, "/team/app:1", bundle.ErrSignature},
		"not signed":            {func(*testing.T, *ocitest.Registry, string) {}, "/team/app:1", bundle.ErrSignature},
		"signed by another key": {func(t *testing.T, r *ocitest.Registry, d string) { stranger.sign(t, r, d, d, r.Host()+"/team/app") }, "/team/app:1", bundle.ErrSignature},
		"J4 a payload for another": {func(t *testing.T, r *ocitest.Registry, d string) {
			good.sign(t, r, d, r.Tags["team/app:multi"], r.Host()+"/team/app")
		}, "/team/app:1", bundle.ErrSignature},
		"J4 a payload of a neighbour's": {func(t *testing.T, r *ocitest.Registry, d string) { good.sign(t, r, d, d, r.Host()+"/team/other") }, "/team/app:1", bundle.ErrSignature},
	}
}

func TestASignatureIsAskedForWhereThePolicySaysSo(t *testing.T) {
	t.Parallel()
	good := newSigner(t)
	for claim, c := range signings(t, good) {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			r := registryOf(t, &ocitest.Registry{})
			c.sign(t, r, r.Tags["team/app:1"])
			s := open(t, trusting(r, func(cfg *Config) {
				cfg.Policies = []Policy{{Prefix: r.Host()}, {Prefix: r.Host() + "/team", Keys: []oci.Key{good.public(t)}}}
			}))
			img, err := s.Fetch(t.Context(), r.Host()+c.ref, "", nil)
			if c.want != "" {
				refused(t, s, err, c.want)
				return
			}
			if err != nil || img.OCI.Signer != "cosign.pub" {
				t.Errorf("got %+v, %v", img.OCI, err)
			}
		})
	}
}
