package bundle

import (
	"crypto/sha256"
	"hash"
)

// Content computes both digests of an image while it is written to it, and compares them with a manifest.
type Content struct {
	sum    hash.Hash
	verity Verity
	size   uint64
}

// NewContent returns an empty content.
func NewContent() *Content { return &Content{sum: sha256.New()} }

// Write never fails.
func (c *Content) Write(p []byte) (int, error) {
	c.sum.Write(p)
	_, _ = c.verity.Write(p) // never fails
	c.size += uint64(len(p))
	return len(p), nil
}

// Info ends the content and returns what a manifest says of it.
func (c *Content) Info(format Format) ImageInfo {
	return ImageInfo{Format: format, Size: c.size, Digest: Digest(c.sum.Sum(nil)), Verity: c.verity.Digest()}
}

// Check compares what was written with the image that info names. Nothing may be written after it.
func (c *Content) Check(info ImageInfo) error {
	got := c.Info(info.Format)
	if got.Size != info.Size || got.Digest != info.Digest {
		return Reject(ErrDigest, "the image has %d bytes and digest %v, the signed manifest says %d and %v: fetch it again",
			got.Size, got.Digest, info.Size, info.Digest)
	}
	if got.Verity != info.Verity {
		return Reject(ErrDigest, "the image has fs-verity digest %v, the signed manifest says %v: the bundle was built wrongly, %s",
			got.Verity, info.Verity, rebuild)
	}
	return nil
}
