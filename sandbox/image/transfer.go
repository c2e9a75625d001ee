package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// transfer is one fetch, over as many connections as it takes.
type transfer struct {
	store  *Store
	want   bundle.Digest // zero = whatever is there
	src    source
	report func(Progress)

	head bundle.Head // of the bundle being fetched; zero until read
	part *part       // nil until admitted
}

// maxIdle is how many connections in a row may bring nothing before the fetch gives up and leaves the retry to its caller.
const maxIdle = 5

func (t *transfer) run(ctx context.Context) (Image, error) {
	t.progress(PhaseCheck)
	for idle := 1; ; idle++ {
		before := t.received()
		img, err := t.try(ctx)
		if err == nil {
			return img, nil
		}
		if ctx.Err() != nil {
			return Image{}, context.Cause(ctx)
		}
		if !t.again(err) {
			t.part.discard()
			t.part = nil
			return Image{}, err
		}
		if errors.Is(err, bundle.ErrChanged) { // nothing of what came may be asked for again
			t.part.discard()
			t.part, t.head = nil, bundle.Head{}
		}
		if t.received() > before {
			idle = 1
		}
		if idle == maxIdle {
			return Image{}, err
		}
		t.store.cfg.Logger.Info("transfer of a bundle was cut and goes on", "image", t.label(), "err", err)
		pause := time.NewTimer(t.store.cfg.Retry(idle))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return Image{}, context.Cause(ctx)
		}
	}
}

// again reports whether another connection may help. A refusal is final, but for a file that ended early or was replaced.
func (t *transfer) again(err error) bool {
	if !t.src.transient() {
		return false
	}
	switch bundle.CodeOf(err) {
	case bundle.ErrTruncated, bundle.ErrChanged:
		return true
	case "":
		return errors.Is(err, errConnection)
	}
	return false
}

func (t *transfer) try(ctx context.Context) (Image, error) {
	var offset int64
	if t.part != nil {
		offset = t.head.Header.PayloadOffset() + t.part.stored()
	}
	body, fromStart, err := t.src.open(ctx, offset)
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = body.Close() }()
	switch {
	case t.part == nil:
		img, done, err := t.begin(ctx, body)
		if done || err != nil {
			return img, err
		}
		if t.part.good > 0 && !t.part.whole() { // an earlier fetch ended there: ask for the rest
			_ = body.Close()
			return t.try(ctx)
		}
	case fromStart:
		if err := t.skip(body); err != nil {
			return Image{}, err
		}
	}
	if err := t.receive(body); err != nil {
		return Image{}, err
	}
	return t.install(ctx)
}

// begin reads everything before the payload and decides. done means that the bundle is installed already.
func (t *transfer) begin(ctx context.Context, body io.Reader) (img Image, done bool, err error) {
	head, err := bundle.ReadHead(body, t.store.cfg.Trusted)
	if err != nil {
		return Image{}, false, err
	}
	if !t.want.IsZero() && head.Digest != t.want {
		return Image{}, false, bundle.Reject(bundle.ErrDigest, "the bundle there is %v, wanted is %v: correct the digest or the URL", head.Digest, t.want)
	}
	if img, err := t.store.present(head.Digest); err == nil {
		return img, true, nil
	}
	if size, known := sizeOf(body); known && size != head.Header.FileSize() {
		code := bundle.ErrTruncated
		if size > head.Header.FileSize() {
			code = bundle.ErrLength
		}
		return Image{}, false, &bundle.Error{
			Code: code,
			Why:  fmt.Sprintf("the bundle has %d bytes, its header says %d: copy it to its server or place again", size, head.Header.FileSize()),
		}
	}
	if err := t.store.admit(head); err != nil {
		return Image{}, false, err
	}
	index, err := head.ReadIndex(body)
	if err != nil {
		return Image{}, false, err
	}
	if img, err := t.adopt(ctx, head, index); err == nil || !errors.Is(err, errNoImage) {
		return img, err == nil, err
	}
	p, err := t.store.openPart(head.Manifest.Image.Digest, index)
	if err != nil {
		return Image{}, false, err
	}
	size := int64(head.Manifest.Image.Size)
	if err = t.store.admitSpace(size, p.plain); err == nil {
		err = p.reserve(size)
	}
	if err != nil {
		p.discard()
		return Image{}, false, err
	}
	t.head, t.part = head, p
	return Image{}, false, nil
}

// errNoImage says that no installed bundle has the same image.
var errNoImage = errors.New("no such image")

// adopt installs a bundle whose image is here already, as a part of another bundle: only its manifest is new.
func (t *transfer) adopt(ctx context.Context, head bundle.Head, index bundle.Index) (Image, error) {
	s := t.store
	f, err := openSealed(s.imagePath(head.Manifest.Image.Digest))
	if err != nil {
		return Image{}, errNoImage
	}
	defer func() { _ = f.Close() }()
	if err := checkImage(ctx, f, head.Manifest.Image); err != nil {
		return Image{}, errNoImage // rotten: it is fetched again and replaced
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sequenceLocked(head); err != nil {
		return Image{}, err
	}
	if _, err := os.Lstat(s.imagePath(head.Manifest.Image.Digest)); err != nil {
		return Image{}, errNoImage // collected in between
	}
	return s.keepLocked(head, index)
}

// skip reads a body that starts at 0 up to the next chunk. If another bundle is there now, the fetch starts again with it.
func (t *transfer) skip(body io.Reader) error {
	head, err := bundle.ReadHead(body, t.store.cfg.Trusted)
	if err != nil {
		return err
	}
	if head.Digest != t.head.Digest || head.Header != t.head.Header {
		return bundle.Reject(bundle.ErrChanged, "the bundle was replaced by %v while it was fetched: it is fetched again from its start", head.Digest)
	}
	left := t.head.Header.PayloadOffset() + t.part.stored() - bundle.HeaderSize - int64(head.Header.Envelope)
	if n, err := io.CopyN(io.Discard, body, left); err != nil {
		if errors.Is(err, io.EOF) {
			return bundle.Reject(bundle.ErrTruncated, "the bundle ends %d bytes early: fetch or copy it again", left-n)
		}
		return fmt.Errorf("skip: %w", err)
	}
	return nil
}

// receive reads chunks until all are there and nothing follows.
func (t *transfer) receive(body io.Reader) error {
	if t.part.whole() { // a part file of an earlier fetch that held everything
		return nil
	}
	chunks, err := bundle.NewChunkReader(body, t.part.index, t.part.good)
	if err != nil {
		return err
	}
	defer chunks.Close()
	for {
		plain, err := chunks.Next()
		if errors.Is(err, io.EOF) {
			return bundle.ExpectEnd(body)
		}
		if err != nil {
			return err
		}
		if err := t.part.add(plain); err != nil {
			return err
		}
		t.progress(PhaseTransfer)
	}
}

// install reads the image back from the disk, checks it, and makes it and the bundle visible.
func (t *transfer) install(ctx context.Context) (Image, error) {
	t.progress(PhaseVerify)
	p, info := t.part, t.head.Manifest.Image
	if err := p.file.Sync(); err != nil {
		return Image{}, fmt.Errorf("sync image: %w", err)
	}
	_ = unix.Fadvise(int(p.file.Fd()), 0, 0, unix.FADV_DONTNEED) // so that the disk is read, not our own memory
	if err := checkImage(ctx, p.file, info); err != nil {
		return Image{}, err
	}
	err := p.file.Chmod(0o400)
	if err == nil {
		err = p.file.Sync()
	}
	if err != nil {
		return Image{}, fmt.Errorf("seal image: %w", err)
	}
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sequenceLocked(t.head); err != nil { // a Commit may have come in between
		return Image{}, err
	}
	if err := os.Rename(p.path, s.imagePath(info.Digest)); err != nil {
		return Image{}, fmt.Errorf("keep image: %w", err)
	}
	p.close()
	t.part = nil
	return s.keepLocked(t.head, p.index)
}

// keepLocked writes the .spm, which makes the bundle an installed one. The image is in place.
func (s *Store) keepLocked(head bundle.Head, index bundle.Index) (Image, error) {
	err := syncDir(s.blobs())
	if err == nil {
		err = replaceFile(s.metaPath(head.Digest), bundle.AppendPrefix(nil, head.Envelope, index))
	}
	if err != nil {
		return Image{}, fmt.Errorf("keep bundle: %w", err)
	}
	r := newRecord(head, s.cfg.Now())
	s.records[head.Digest] = r
	s.cfg.Logger.Info("bundle installed", "module", r.Name, "image", r.Digest.String(), "version", r.Version, "sequence", r.Sequence)
	return r.Image, nil
}

func (t *transfer) end() { t.part.close() }

func (t *transfer) received() int64 {
	if t.part == nil {
		return 0
	}
	return t.part.plain
}

func (t *transfer) label() string {
	if t.part == nil {
		return ""
	}
	return t.head.Manifest.Name + " " + t.head.Manifest.Version
}

func (t *transfer) progress(phase Phase) {
	if t.report != nil {
		t.report(Progress{Phase: phase, Image: t.label(), Done: t.received(), Total: int64(t.head.Manifest.Image.Size)})
	}
}
