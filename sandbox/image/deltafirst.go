package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// deltaFirst makes a large image by a delta before its index is fetched, when there is a delta of fewer bytes than the index has. The
// delta brings what the index says beyond the image itself, and the signed manifest decides about both. ok = the bundle is installed;
// neither that nor an error = the index is needed.
func (t *transfer) deltaFirst(ctx context.Context, head *bundle.Head) (img Image, ok bool, err error) {
	s, m := t.store, &head.Manifest
	most := head.Header.PayloadOffset() - firstBytes
	if most <= 0 || t.delta || t.resume != nil && t.resume.NoDelta || s.known(head.Digest) {
		return Image{}, false, nil
	}
	if _, err := os.Lstat(s.imagePath(m.Image.Digest)); err == nil { // another bundle brought it
		return Image{}, false, nil
	}
	if _, err := os.Lstat(s.partPath(m.Image.Digest)); err == nil && t.resume == nil { // with its index that is gone on with
		return Image{}, false, nil
	}
	for i, r := range s.older(m, mostDeltas) {
		if r.Name != m.Name {
			break
		}
		if t.resume == nil {
			t.resume = &resume{Reference: t.reference, Validator: t.src.current().validator(), Bare: true, head: *head}
		}
		t.head = head
		img, err := t.wholeFrom(ctx, r.manifest.Image, most)
		t.made = 0
		switch {
		case err == nil:
			return img, true, nil
		case ctx.Err() != nil:
			return Image{}, false, context.Cause(ctx)
		case errors.Is(err, errOwnDisk), errors.Is(err, errConnection), errors.Is(err, bundle.ErrMetered), errors.Is(err, bundle.ErrSpace):
			return Image{}, false, err
		case errors.Is(err, errNoDelta):
			t.delta = errors.Is(err, errAbsentDelta) && (i == 0 || t.delta) // nobody asks again where there is none
			continue
		}
		s.cfg.Logger.Warn("delta did not do and the chunks are fetched", "image", t.label(), "err", err)
		t.resume.NoDelta = true
		if err := s.writeResume(t.resume); err != nil {
			return Image{}, false, diskError("note transfer", err)
		}
		break
	}
	return Image{}, false, nil
}

func (s *Store) known(d bundle.Digest) bool {
	_, err := s.record(d)
	return err == nil
}

// wholeFrom brings the delta from one image, and installs what it makes.
func (t *transfer) wholeFrom(ctx context.Context, old bundle.ImageInfo, most int64) (Image, error) {
	s, next := t.store, t.head.Manifest.Image
	base, err := openSealed(s.imagePath(old.Digest))
	if err != nil {
		return Image{}, errNoDelta
	}
	defer func() { _ = base.Close() }()
	if err := s.admitSpace(int64(next.Size), 0); err != nil {
		return Image{}, err
	}
	name := bundle.DeltaName(old.Digest, next.Digest)
	if err := t.probe(ctx, name, most); err != nil {
		return Image{}, err
	}
	path := s.stagePath(name)
	delta, err := t.download(ctx, name, path, most)
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = delta.Close() }()
	p, err := t.makeWhole(delta, base, old)
	if errors.Is(err, errOwnDisk) {
		return Image{}, err // the delta stays: it is not fetched again
	}
	if err != nil {
		_ = os.Remove(path)
		return Image{}, err
	}
	t.part = p
	img, err := t.install(ctx)
	if err == nil || !errors.Is(err, errOwnDisk) && ctx.Err() == nil {
		_ = os.Remove(path)
	}
	return img, err
}

// errAbsentDelta says that the server has no such file.
var errAbsentDelta = fmt.Errorf("%w: absent", errNoDelta)

// probe asks for a delta's header only, which tells its length: what a server has sent of a long one is paid for.
func (t *transfer) probe(ctx context.Context, name string, most int64) error {
	body, fromStart, err := t.src.current().sibling(name).open(ctx, 0, bundle.DeltaHeaderSize)
	if bundle.CodeOf(err) == bundle.ErrTransfer {
		return errAbsentDelta
	}
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if size, known := sizeOf(body); fromStart || !known || size > most {
		return errNoDelta
	}
	_, err = io.Copy(io.Discard, body)
	return err
}

// makeWhole applies a delta to an image and returns the new one, whose index is the signed one.
func (t *transfer) makeWhole(delta io.Reader, base *os.File, old bundle.ImageInfo) (p *part, err error) {
	s, next := t.store, t.head.Manifest.Image
	p = &part{path: s.partPath(next.Digest), step: s.step, syncEvery: s.cfg.syncEvery}
	if err = s.step("open part"); err == nil {
		p.file, err = openOwn(p.path)
	}
	if err == nil {
		err = p.file.Truncate(0)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("%w: %w", errOwnDisk, diskError("open part file", err))
	}
	defer func() {
		if err != nil {
			p.discard()
		}
	}()
	if err := reserve(p.file, int64(next.Size), s.step); err != nil {
		return nil, fmt.Errorf("%w: %w", errOwnDisk, err)
	}
	want := bundle.DeltaHeader{From: old.Digest, To: next.Digest, Size: next.Size}
	stored, err := bundle.ApplyDelta(&wholeSink{t, p.file}, delta, base, int64(old.Size), want)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, errNoDelta // it needs the index
	}
	index, err := bundle.MakeIndex(io.NewSectionReader(p.file, 0, int64(next.Size)), stored, t.head.Manifest)
	if err != nil {
		return nil, err
	}
	whole := newPart(index)
	whole.file, whole.path, whole.step, whole.syncEvery = p.file, p.path, p.step, p.syncEvery
	for i := range index {
		whole.note(i)
	}
	return whole, nil
}

// wholeSink writes an image in order.
type wholeSink struct {
	t    *transfer
	file *os.File
}

func (w *wholeSink) Write(b []byte) (int, error) {
	err := w.t.store.step("write part")
	if err == nil {
		_, err = w.file.WriteAt(b, w.t.made)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errOwnDisk, diskError("write part file", err))
	}
	w.t.made += int64(len(b))
	w.t.progress(PhaseTransfer)
	return len(b), nil
}
