package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// A delta is asked for when the chunks to fetch have at least leastForDelta bytes, and taken when it has at most four fifths of them.
const (
	leastForDelta = 32 << 10
	mostDeltas    = 2 // older images that a delta is asked for
)

// byDelta makes the image from the newest older one of its module, if the server has a delta for that. Whatever is wrong with it
// costs its bytes: the chunks are fetched then, and it is not asked for again.
func (t *transfer) byDelta(ctx context.Context) error {
	if t.repairing || t.delta || t.resume.NoDelta {
		return nil
	}
	t.delta = true
	var missing int64
	for i, c := range t.part.index {
		if t.fetch[i] && !t.part.have[i] {
			missing += int64(c.Stored)
		}
	}
	if missing < leastForDelta {
		return nil
	}
	for _, r := range t.store.older(&t.head.Manifest, mostDeltas) {
		if r.Name != t.head.Manifest.Name {
			break
		}
		err := t.deltaFrom(ctx, r.manifest.Image, missing*4/5)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errOwnDisk), errors.Is(err, bundle.ErrMetered):
			return err
		case errors.Is(err, errConnection):
			t.delta = false // the chunks would meet the same link
			return err
		case errors.Is(err, errNoDelta):
			continue
		}
		t.store.cfg.Logger.Warn("delta did not do and the chunks are fetched", "image", t.label(), "err", err)
		t.resume.NoDelta = true
		t.fetch = t.donors.plan(t.part)
		if err := t.store.writeResume(t.resume); err != nil {
			return diskError("note transfer", err)
		}
		return nil
	}
	return nil
}

var (
	errNoDelta = errors.New("no delta that would be worth it")
	errOwnDisk = errors.New("part file")
)

func (t *transfer) deltaFrom(ctx context.Context, old bundle.ImageInfo, most int64) error {
	s, next := t.store, t.head.Manifest.Image
	base, err := openSealed(s.imagePath(old.Digest))
	if err != nil {
		return errNoDelta
	}
	defer func() { _ = base.Close() }()
	path := s.stagePath(bundle.DeltaName(old.Digest, next.Digest))
	file, err := t.download(ctx, bundle.DeltaName(old.Digest, next.Digest), path, most)
	if err != nil {
		return err
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(path)
	}()
	sink := &imageSink{transfer: t}
	want := bundle.DeltaHeader{From: old.Digest, To: next.Digest, Size: next.Size}
	if _, err := bundle.ApplyDelta(sink, file, base, int64(old.Size), want); err != nil {
		return err
	}
	if !t.part.whole() {
		return fmt.Errorf("%d chunks are missing after the delta", t.part.missed)
	}
	return nil
}

// download brings a delta into the stage, over as many connections as bring something. What an earlier agent left is gone on with
// when the server's validator proves what it is a start of.
func (t *transfer) download(ctx context.Context, name, path string, most int64) (*os.File, error) {
	err := t.store.step("open delta")
	var file *os.File
	if err == nil {
		file, err = openOwn(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOwnDisk, diskError("open delta", err))
	}
	src := t.src.current().sibling(name)
	var at int64
	if v, ok := strings.CutPrefix(t.resume.Delta, name+" "); ok {
		src.validate(v)
		if info, err := file.Stat(); err == nil {
			at = max(0, info.Size()-1) // a byte that is there is asked for again: nothing may be left to ask for
		}
	}
	if err := t.downloadTo(ctx, file, src, at, most); err != nil {
		_ = file.Close()
		if !errors.Is(err, errConnection) && !errors.Is(err, errOwnDisk) && ctx.Err() == nil {
			_ = os.Remove(path)
		}
		return nil, err
	}
	return file, nil
}

func (t *transfer) downloadTo(ctx context.Context, file *os.File, src source, at, most int64) error {
	for idle := 1; ; idle++ {
		from := at
		if from > 0 && src.validator() == "" {
			from = 0
		}
		n, done, err := t.downloadFrom(ctx, file, src, from, most)
		if done {
			_, err = file.Seek(0, io.SeekStart)
			return err
		}
		if !errors.Is(err, errConnection) || idle == maxIdle {
			return err
		}
		if n > at {
			idle = 1
		}
		at = n
		if err := pause(ctx, t.store.cfg.Retry(idle)); err != nil {
			return err
		}
	}
}

// downloadFrom reads one connection to its end and returns how far the file goes now.
func (t *transfer) downloadFrom(ctx context.Context, file *os.File, src source, at, most int64) (int64, bool, error) {
	body, fromStart, err := src.open(ctx, at, toEnd)
	if err != nil {
		if bundle.CodeOf(err) == bundle.ErrTransfer {
			err = errNoDelta
		}
		return at, false, err
	}
	defer func() { _ = body.Close() }()
	if size, known := sizeOf(body); known && size > most {
		return at, false, errNoDelta
	}
	if note := filepath.Base(file.Name()) + " " + src.validator(); src.validator() != "" && note != t.resume.Delta {
		t.resume.Delta = note
		if err := t.store.writeResume(t.resume); err != nil {
			return at, false, fmt.Errorf("%w: %w", errOwnDisk, err)
		}
	}
	if fromStart {
		at = 0
	}
	err = file.Truncate(at)
	if err == nil {
		_, err = file.Seek(at, io.SeekStart)
	}
	if err != nil {
		return at, false, fmt.Errorf("%w: %w", errOwnDisk, err)
	}
	n, err := io.Copy(diskWriter{file, t}, io.LimitReader(body, most+1-at))
	at += n
	if err == nil && at > most {
		err = errNoDelta
	}
	return at, err == nil, err
}

// diskWriter marks the disk's errors among the network's.
type diskWriter struct {
	file *os.File
	t    *transfer
}

func (d diskWriter) Write(p []byte) (int, error) {
	err := d.t.store.step("write delta")
	n := 0
	if err == nil {
		n, err = d.file.Write(p)
	}
	if err != nil {
		return n, fmt.Errorf("%w: %w", errOwnDisk, diskError("write delta", err))
	}
	d.t.meter.wire += int64(n)
	d.t.progress(PhaseTransfer)
	return n, nil
}

// imageSink takes an image in order, and keeps only chunks that are what the index says.
type imageSink struct {
	transfer *transfer
	next     int
	buf      []byte
}

func (s *imageSink) Write(p []byte) (int, error) {
	part, total := s.transfer.part, len(p)
	for len(p) > 0 {
		if s.next == len(part.index) {
			return 0, bundle.Reject(bundle.ErrDelta, "the delta makes more than the image")
		}
		c := part.index[s.next]
		n := min(int(c.Plain)-len(s.buf), len(p))
		s.buf, p = append(s.buf, p[:n]...), p[n:]
		if len(s.buf) < int(c.Plain) {
			break
		}
		if sha256.Sum256(s.buf) != c.Digest {
			return 0, bundle.Reject(bundle.ErrDelta, "chunk %d of what the delta makes is not what the signed index says", s.next)
		}
		if !part.have[s.next] {
			if err := part.add(s.next, s.buf); err != nil {
				return 0, fmt.Errorf("%w: %w", errOwnDisk, err)
			}
			s.transfer.progress(PhaseTransfer)
		}
		s.next++
		s.buf = s.buf[:0]
	}
	return total, nil
}
