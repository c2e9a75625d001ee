package bundle

import (
	"bytes"
	"crypto"

	"github.com/klauspost/compress/zstd"
)

// The inside that the attack tests need to build what no honest tool builds.
const ExternalAAD = externalAAD

// Crypto is the key below.
func Crypto(k PublicKey) crypto.PublicKey { return k.key }

// Signer is the key below, which signs ECDSA without chance.
func Signer(k PrivateKey) crypto.Signer { return k.signer }

// EncodeCBOR prints v as the format does.
func EncodeCBOR(v any) []byte { return dialect().encode(v) }

// Parts takes a bundle apart.
func Parts(spb []byte) (Envelope, Index, []byte) {
	head, err := ReadHeadUnverified(bytes.NewReader(spb))
	if err != nil {
		panic(err)
	}
	at := head.Header.IndexOffset()
	index, err := ParseIndex(spb[at:at+int64(head.Header.Index)], head.Manifest.Image.Size, head.Manifest.Index.Payload)
	if err != nil {
		panic(err)
	}
	return head.Envelope, index, spb[head.Header.PayloadOffset():]
}

// SuffixArray is suffixArray.
func SuffixArray(text []byte) []int32 { return suffixArray(text) }

// CompressDelta puts records of any kind behind a header.
func CompressDelta(h DeltaHeader, records []byte) []byte {
	var out bytes.Buffer
	enc, err := zstd.NewWriter(&out, zstd.WithWindowSize(deltaWindow), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	_, _ = enc.Write(records)
	_ = enc.Close()
	return append(h.Append(nil), out.Bytes()...)
}
