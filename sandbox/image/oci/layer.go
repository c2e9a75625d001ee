package oci

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Layer is one layer of an image and how to read it.
type Layer struct {
	Blob   Descriptor // zero Digest: only the plain form is known, as in archives of old Dockers
	DiffID Digest     // of the plain tar
	Open   func() (io.ReadCloser, error)

	form compression
}

// stream reads one layer: its compressed bytes are counted and hashed on the way in, its plain bytes on the way out.
type stream struct {
	layer Layer
	limit int64 // plain bytes

	blob   io.ReadCloser
	in     *meter
	unpack io.ReadCloser // nil for plain layers
	out    *meter
	tape   *tape
}

// meter counts and hashes what is read through it.
type meter struct {
	ctx   context.Context //nolint:containedctx // lives for one pass over one layer
	r     io.Reader
	sum   hash.Hash
	n     int64
	limit func(n int64) error
}

func (m *meter) Read(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	n, err := m.r.Read(p)
	m.sum.Write(p[:n])
	m.n += int64(n)
	if lerr := m.limit(m.n); lerr != nil {
		return n, lerr
	}
	return n, err
}

func (m *meter) digest() Digest { return Digest(m.sum.Sum(nil)) }

func (l Layer) stream(ctx context.Context, limit int64) (*stream, error) {
	blob, err := l.Open()
	if err != nil {
		return nil, fmt.Errorf("open layer %v: %w", l.name(), err)
	}
	s := &stream{layer: l, limit: limit, blob: blob}
	s.in = &meter{ctx: ctx, r: blob, sum: sha256.New(), limit: func(int64) error { return nil }}
	var tarBytes io.Reader = s.in
	switch l.form {
	case plain:
	case gzipped:
		z, err := gzip.NewReader(s.in)
		if err != nil {
			_ = blob.Close()
			return nil, s.broken(err)
		}
		s.unpack, tarBytes = z, z
	case zstdForm:
		z, err := zstd.NewReader(s.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			_ = blob.Close()
			return nil, s.broken(err)
		}
		s.unpack, tarBytes = z.IOReadCloser(), z
	}
	s.out = &meter{ctx: ctx, r: tarBytes, sum: sha256.New(), limit: s.bomb}
	s.tape = &tape{r: s.out}
	return s, nil
}

func (s *stream) close() {
	if s.unpack != nil {
		_ = s.unpack.Close()
	}
	_ = s.blob.Close()
}

// bomb refuses a layer that becomes too large.
func (s *stream) bomb(n int64) error {
	if n > s.limit || n > freePlain && s.layer.form != plain && n/maxRatio > s.in.n {
		return bundle.Reject(bundle.ErrLimit, "layer %v unpacks to more than %d bytes from %d: build the image again without it", s.layer.name(), n-1, s.in.n)
	}
	return nil
}

func (l Layer) name() Digest {
	if l.Blob.Digest.IsZero() {
		return l.DiffID
	}
	return l.Blob.Digest
}

// next returns the header of the next entry, or io.EOF.
func (s *stream) next() (label, error) {
	l, err := s.tape.next()
	if err == nil || errors.Is(err, io.EOF) {
		return l, err
	}
	return label{}, s.broken(err)
}

// broken says what an error of a decompressor or of the tar reader is.
func (s *stream) broken(err error) error {
	if _, ok := errors.AsType[*bundle.Error](err); ok || s.in.ctx.Err() != nil {
		return err
	}
	code := tapeError(err)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		code = bundle.ErrLimit
	}
	return &bundle.Error{Code: code, Why: fmt.Sprintf("layer %v cannot be read: %v: fetch or build the image again", s.layer.name(), err), Err: err}
}

// end reads what follows the last entry and compares both digests.
func (s *stream) end() error {
	if _, err := io.Copy(io.Discard, s.out); err != nil {
		return s.broken(err)
	}
	if _, err := io.Copy(io.Discard, s.in); err != nil { // what follows the compressed form
		return s.broken(err)
	}
	if d := s.layer.Blob; !d.Digest.IsZero() && (s.in.n != d.Size || s.in.digest() != d.Digest) {
		return bundle.Reject(bundle.ErrDigest, "layer %v has %d bytes and digest %v, its manifest says %d: fetch the image again", d.Digest, s.in.n, s.in.digest(), d.Size)
	}
	if got := s.out.digest(); got != s.layer.DiffID {
		return bundle.Reject(bundle.ErrDigest, "layer %v unpacks to %v, the image's config says %v: build the image again", s.layer.name(), got, s.layer.DiffID)
	}
	return nil
}
