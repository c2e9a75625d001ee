package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// What cosign 3 leaves beside an image: manifests whose subject the image is, each with a bundle that holds a signed statement. Sources: the
// distribution specification's "Listing Referrers", sigstore_bundle.proto, DSSE, and the in-toto Statement v1.
const (
	typeSigstoreBundle = "application/vnd.dev.sigstore.bundle."
	typeInToto         = "application/vnd.in-toto+json"
	typeStatement      = "https://in-toto.io/Statement/v1"
	typeSignPredicate  = "https://sigstore.dev/cosign/sign/v1" // an attestation by the same key says something else of the image
)

// referrers lists the manifests whose subject is the digest: where the registry knows of them, else at the tag where clients keep the list.
// None is no error.
func (c *Client) referrers(ctx context.Context, r Reference, digest Digest) ([]Descriptor, error) {
	var text []byte
	err := c.each(ctx, r, func(e endpoint) error {
		resp, err := c.get(ctx, e, "referrers/"+digest.String(), 0)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if text, err = io.ReadAll(io.LimitReader(resp.Body, maxDocument)); err != nil {
			return fmt.Errorf("%w: read referrers: %w", ErrConnection, err)
		}
		return nil
	})
	if bundle.CodeOf(err) == bundle.ErrTransfer {
		var doc Document
		doc, err = c.Manifest(ctx, Reference{Host: r.Host, Path: r.Path, Tag: "sha256-" + digest.Hex()})
		text = doc.Text
	}
	if bundle.CodeOf(err) == bundle.ErrTransfer {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var d document
	if json.Unmarshal(text, &d) != nil {
		return nil, nil //nolint:nilerr // nothing that can be believed
	}
	return d.Manifests[:min(len(d.Manifests), maxSignatures)], nil
}

// sigstoreStatement reads a sigstore bundle, and returns what was signed in it, with the signature over exactly that.
func sigstoreStatement(text []byte) (signed, statement, signature []byte) {
	var b struct {
		Envelope struct {
			Payload    []byte `json:"payload"`
			Type       string `json:"payloadType"`
			Signatures []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if json.Unmarshal(text, &b) != nil || len(b.Envelope.Signatures) != 1 || b.Envelope.Type != typeInToto {
		return nil, nil, nil
	}
	e := b.Envelope
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.Type), e.Type, len(e.Payload), e.Payload), e.Payload, e.Signatures[0].Sig
}

// states says why a signed statement does not say that the image is signed, or "". It names no repository: the digest is all it binds.
func states(statement []byte, digest Digest) string {
	var s struct {
		Type      string `json:"_type"`
		Predicate string `json:"predicateType"`
		Subject   []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if json.Unmarshal(statement, &s) != nil || s.Type != typeStatement || s.Predicate != typeSignPredicate {
		return fmt.Sprintf("what is signed is a statement of type %.80q, not a signature of an image", s.Predicate)
	}
	for _, subject := range s.Subject {
		if subject.Digest["sha256"] == digest.Hex() {
			return ""
		}
	}
	return "the signature is over another image"
}

// acceptable are what a registry may answer to a request for something.
func acceptable(what string) string {
	switch {
	case strings.HasPrefix(what, "manifests/"):
		return strings.Join([]string{TypeIndex, TypeManifest, TypeDockerList, TypeDocker}, ", ")
	case strings.HasPrefix(what, "referrers/"):
		return TypeIndex
	}
	return ""
}
