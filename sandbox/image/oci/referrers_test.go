package oci

import (
	"strings"
	"testing"
)

func FuzzSigstoreStatement(f *testing.F) {
	digest := Digest{0xab}
	f.Add([]byte(`{"dsseEnvelope":{"payload":"eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEifQ==","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AAAA"}]}}`))
	f.Add([]byte(`{"dsseEnvelope":{"signatures":[]}}`))
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://sigstore.dev/cosign/sign/v1","subject":[{"digest":{"sha256":"` + digest.Hex() + `"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		signed, statement, signature := sigstoreStatement(b)
		if signed == nil && (statement != nil || signature != nil) || !strings.HasSuffix(string(signed), string(statement)) {
			t.Errorf("%q is signed, and %q is what it says", signed, statement)
		}
		_ = states(b, digest)
	})
}
