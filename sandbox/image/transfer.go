package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// transfer is one fetch, over as many connections as it takes.
type transfer struct {
	store     *Store
	reference string
	want      bundle.Digest // zero = whatever is there
	src       *mirrors
	report    func(Progress)

	head    *bundle.Head // of the bundle being fetched; nil until read
	part    *part        // nil until admitted
	donors  *donors
	fetch   []bool  // chunks that come over the network
	resume  *resume // never nil once there is a part
	delta   bool    // whether a delta was tried
	made    int64   // bytes of the image that a delta made so far, before there is a part
	tail    tail    // of a chunk that was cut
	strikes int     // chunks that were not what they should be

	repairing bool // an installed image: no delta, and no other place has its chunks
	meter     progressMeter
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
			if ofBundle(err) {
				t.abandon()
			}
			return Image{}, err
		}
		if errors.Is(err, bundle.ErrChanged) { // nothing of what came may be asked for again
			t.abandon()
		}
		if t.received() > before {
			idle = 1
		}
		if idle == maxIdle {
			return Image{}, err
		}
		t.src.turn()
		t.store.cfg.Logger.Info("transfer of a bundle was cut and goes on", "image", t.label(), "err", err)
		if err := pause(ctx, t.store.cfg.Retry(idle)); err != nil {
			return Image{}, err
		}
	}
}

// pause waits, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// again reports whether another connection may help. A refusal is final, but for a file that ended early or was replaced, and for
// what another mirror may have in order.
func (t *transfer) again(err error) bool {
	if !t.src.current().transient() {
		return false
	}
	switch bundle.CodeOf(err) {
	case bundle.ErrTruncated, bundle.ErrChanged:
		return true
	case bundle.ErrMetered, bundle.ErrSpace:
		return false
	case "":
		return errors.Is(err, errConnection)
	default: // what is wrong with one mirror's file need not be with the next one's
		t.strikes++
		return t.strikes < len(t.src.all)
	}
}

// ofBundle reports an error that says something of the bundle: after one of this disk or link, what came is gone on with.
func ofBundle(err error) bool {
	switch bundle.CodeOf(err) {
	case "", bundle.ErrSpace, bundle.ErrMetered:
		return false
	default:
		return true
	}
}

// abandon forgets what came.
func (t *transfer) abandon() {
	if t.part != nil {
		t.part.discard()
		_ = removeIfThere(t.store.resumePath(t.head.Manifest.Image.Digest))
	}
	t.dropTail()
	t.donors.close()
	t.part, t.donors, t.fetch, t.head, t.resume, t.delta = nil, nil, nil, nil, nil, false
}

func (t *transfer) try(ctx context.Context) (Image, error) {
	var body io.ReadCloser
	if t.part == nil {
		img, rest, done, err := t.start(ctx)
		if done || err != nil {
			return img, err
		}
		body = rest
	}
	err := t.fill(ctx, body)
	if err != nil {
		return Image{}, err
	}
	return t.install(ctx)
}

// start learns which bundle it is and decides. It goes on with a transfer that was begun before; asks for the bundle's start where
// something on this device may have its chunks; and else begins to read the whole, of which body is the rest. done means that the
// bundle is installed already.
func (t *transfer) start(ctx context.Context) (img Image, body io.ReadCloser, done bool, err error) {
	begun, err := t.store.findResume(t.reference, t.want)
	if r := begun; err == nil && !r.Bare {
		t.src.all[0].validate(r.Validator)
		t.resume = r
		img, done, err = t.begin(ctx, &r.head, r.index)
		return img, nil, done, err
	}
	src := t.src.current()
	if t.store.anything() {
		p := &prefixReader{ctx: ctx, src: src}
		defer func() {
			if body == nil {
				p.close()
			}
		}()
		head, err := t.readHead(p)
		if err != nil {
			return Image{}, nil, false, err
		}
		if begun != nil && begun.Bare && begun.head.Digest == head.Digest {
			begun.Validator, t.resume = src.validator(), begun
		}
		if !p.whole && src.transient() {
			p.keep()
			if img, done, err = t.deltaFirst(ctx, head); done || err != nil {
				return img, nil, done, err
			}
		}
		index, err := head.ReadIndex(p)
		if err != nil {
			return Image{}, nil, false, err
		}
		img, done, err = t.begin(ctx, head, index)
		if p.whole && p.at == head.Header.PayloadOffset() && err == nil && !done {
			body, p.body = p.body, nil
		}
		return img, body, done, err
	}
	all, _, err := src.open(ctx, 0, toEnd)
	if err != nil {
		return Image{}, nil, false, err
	}
	head, index, err := t.read(all)
	if err == nil {
		img, done, err = t.begin(ctx, head, index)
	}
	if err != nil || done || t.part.bytes > 0 { // what an earlier fetch brought is not read again
		return img, nil, done, errors.Join(err, all.Close())
	}
	return img, all, false, nil
}

// read takes everything before the payload.
func (t *transfer) read(body io.Reader) (*bundle.Head, bundle.Index, error) {
	head, err := t.readHead(body)
	if err != nil {
		return nil, nil, err
	}
	index, err := head.ReadIndex(body)
	return head, index, err
}

// readHead takes what says which bundle it is, and decides whether this device may have it.
func (t *transfer) readHead(body io.Reader) (*bundle.Head, error) {
	head, err := bundle.ReadHead(body, t.store.cfg.Trusted)
	if err != nil {
		return nil, err
	}
	if !t.want.IsZero() && head.Digest != t.want {
		return nil, bundle.Reject(bundle.ErrDigest, "the bundle there is %v, wanted is %v: correct the digest or the URL", head.Digest, t.want)
	}
	if size, known := sizeOf(body); known && size != head.Header.FileSize() {
		code := bundle.ErrTruncated
		if size > head.Header.FileSize() {
			code = bundle.ErrLength
		}
		return nil, &bundle.Error{
			Code: code,
			Why:  fmt.Sprintf("the bundle has %d bytes, its header says %d: copy it to its server or place again", size, head.Header.FileSize()),
		}
	}
	return &head, t.store.admit(head)
}

// begin decides about a bundle whose signature was checked and makes room for it.
func (t *transfer) begin(ctx context.Context, head *bundle.Head, index bundle.Index) (img Image, done bool, err error) {
	s := t.store
	if img, err := s.present(head.Digest); err == nil {
		return img, true, nil
	}
	if err := s.admit(*head); err != nil {
		return Image{}, false, err
	}
	if img, err := t.adopt(ctx, *head, index); err == nil || !errors.Is(err, errNoImage) {
		return img, err == nil, err
	}
	p, err := s.openPart(head.Manifest.Image.Digest, index)
	if err != nil {
		return Image{}, false, err
	}
	if err = s.admitSpace(int64(head.Manifest.Image.Size), p.blocks()); err == nil {
		err = p.reserve()
	}
	if err != nil {
		if p.bytes > 0 { // room may come, and what is there is not fetched twice
			p.close()
		} else {
			p.discard()
		}
		return Image{}, false, err
	}
	t.head, t.part = head, p
	t.donors = s.donors(&head.Manifest, p)
	t.fetch = t.donors.plan(p)
	if t.resume == nil {
		t.resume = &resume{Reference: t.reference, Validator: t.src.current().validator(), head: *head, index: index}
	}
	t.resume.Bare, t.resume.index = false, index
	t.findTail()
	if t.src.current().transient() {
		err = s.writeResume(t.resume)
	}
	if err != nil {
		return Image{}, false, diskError("note transfer", err)
	}
	return Image{}, false, nil
}

// skip reads a body that starts at 0 up to chunk i. If another bundle is there now, the fetch starts again with it.
func (t *transfer) skip(body io.Reader, i int) error {
	head, err := bundle.ReadHead(body, t.store.cfg.Trusted)
	if err != nil {
		return err
	}
	if head.Digest != t.head.Digest || head.Header != t.head.Header {
		return bundle.Reject(bundle.ErrChanged, "the bundle was replaced by %v while it was fetched: it is fetched again from its start", head.Digest)
	}
	left := t.head.Header.PayloadOffset() + t.part.stored[i] - bundle.HeaderSize - int64(head.Header.Envelope)
	if n, err := io.CopyN(io.Discard, body, left); err != nil {
		if errors.Is(err, io.EOF) {
			return bundle.Reject(bundle.ErrTruncated, "the bundle ends %d bytes early: fetch or copy it again", left-n)
		}
		return fmt.Errorf("skip: %w", err)
	}
	return nil
}

// sameFile asks whether the bundle is still the one whose chunks are fetched. Without a validator a replaced file shows only by
// chunks that are wrong.
func (t *transfer) sameFile(ctx context.Context) (bool, error) {
	p := &prefixReader{ctx: ctx, src: t.src.current()}
	defer p.close()
	head, err := bundle.ReadHead(p, t.store.cfg.Trusted)
	if err != nil {
		return false, err
	}
	return head.Digest == t.head.Digest && bytes.Equal(head.Header.Append(nil), t.head.Header.Append(nil)), nil
}

func (t *transfer) end() {
	t.part.close()
	t.donors.close()
	t.store.progressed(nil)
}

func (t *transfer) received() int64 {
	if t.part == nil {
		return t.made
	}
	return t.part.bytes
}

func (t *transfer) label() string {
	if t.head == nil {
		return ""
	}
	return t.head.Manifest.Name + " " + t.head.Manifest.Version
}
