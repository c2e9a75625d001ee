package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// repairSuffix ends the name of the file in which chunks arrive for an installed image that lost them.
const repairSuffix = ".repair"

// Repair reads an installed bundle's image chunk by chunk and fetches those that are not what the signed index says from where the
// bundle came. They are compared with the index, gathered in the stage, and then written in their place: a module that runs on the
// image reads the right bytes from then on, but for what the kernel had read before. The layers of an OCI image are pulled again by
// its digest and merged again, which gives the same bytes, see remerge. It returns how many chunks were replaced; none = the image is
// good. What cannot be repaired stays as it is, and the next mount refuses it.
//
// Only a transfer waits for fetches, and only the writing for mounts: reading does not hold anybody up.
func (s *Store) Repair(ctx context.Context, digest bundle.Digest) (replaced int, err error) {
	r, err := s.record(digest)
	if err != nil {
		return 0, err
	}
	if replaced, err = s.repair(ctx, &r); err != nil {
		return 0, fmt.Errorf("repair %s: %w", r.Name, err)
	}
	s.mu.Lock()
	s.checkedLocked(digest, 0)
	s.mu.Unlock()
	return replaced, nil
}

func (s *Store) repair(ctx context.Context, r *record) (int, error) {
	if r.OCI != nil {
		return s.repairOCI(ctx, r)
	}
	index, err := readIndex(s.metaPath(r.Digest))
	if err != nil {
		return 0, err
	}
	f, err := openSealed(s.imagePath(r.manifest.Image.Digest))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	p := newPart(index)
	if err := p.survey(ctx, f); err != nil {
		return 0, err
	}
	if p.whole() {
		info, err := f.Stat()
		if err == nil && info.Size() != r.Size {
			err = bundle.Reject(bundle.ErrDigest, "the image has %d bytes, want %d: fetch it again", info.Size(), r.Size)
		}
		return 0, err
	}
	var rotten []int
	for i, good := range p.have {
		if !good {
			rotten = append(rotten, i)
		}
	}
	s.cfg.Logger.Warn("installed image is damaged", "module", r.Name, "image", r.Digest.String(), "chunks", len(rotten))
	if err := acquire(ctx, s.fetching); err != nil {
		return 0, err
	}
	defer func() { <-s.fetching }()
	defer s.progressed(nil)
	if err := s.bring(ctx, r, p); err != nil {
		return 0, err
	}
	defer p.close()
	if err := s.patch(ctx, r, p, f, rotten); err != nil {
		return 0, err
	}
	p.discard()
	s.cfg.Logger.Info("installed image is repaired", "module", r.Name, "image", r.Digest.String(), "chunks", len(rotten))
	return len(rotten), nil
}

// survey notes which chunks are in the file as they should be. A sector that cannot be read is a damaged one.
func (p *part) survey(ctx context.Context, f *os.File) error {
	buf := make([]byte, bundle.MaxChunk)
	for i, c := range p.index {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b := buf[:c.Plain]
		if _, err := f.ReadAt(b, p.plain[i]); err == nil && sha256.Sum256(b) == c.Digest {
			p.note(i)
		}
	}
	return nil
}

// bring fetches what p misses into a file of its own in the stage. What an earlier repair left there is not fetched again.
func (s *Store) bring(ctx context.Context, r *record, p *part) error {
	s.mu.Lock()
	reference := s.notes.Images[r.Digest].Reference
	s.mu.Unlock()
	ref, err := parseReference(reference)
	if reference == "" || err != nil {
		return bundle.Reject(bundle.ErrDigest, "%d of %d chunks are damaged, and it is not known where the bundle came from: fetch it again", p.missed, len(p.index))
	}
	p.syncEvery = s.cfg.syncEvery
	p.path, p.step = s.stagePath(r.manifest.Image.Digest.Hex()+repairSuffix), s.step
	if err := s.step("open repair"); err != nil {
		return diskError("open stage", err)
	}
	if p.file, err = openOwn(p.path); err != nil {
		return diskError("open stage", err)
	}
	if err := p.recount(); err != nil {
		p.close()
		return diskError("read stage", err)
	}
	t := &transfer{store: s, reference: reference, want: r.Digest, src: s.mirrors(ref), part: p, fetch: make([]bool, len(p.index)), repairing: true}
	for i, have := range p.have {
		t.fetch[i] = !have
	}
	if err := t.persist(ctx); err != nil {
		p.close() // it goes on there the next time
		return err
	}
	return nil
}

// persist brings the chunks of a repair, over as many connections as bring something.
func (t *transfer) persist(ctx context.Context) error {
	for idle := 1; !t.part.whole(); idle++ {
		before := t.part.missed
		err := t.refill(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if t.part.missed < before {
			idle = 1
		}
		if !t.again(err) || idle >= maxIdle {
			return err
		}
		t.src.turn()
		if err := pause(ctx, t.store.cfg.Retry(idle)); err != nil {
			return err
		}
	}
	return nil
}

// refill fetches over one source what is still missing.
func (t *transfer) refill(ctx context.Context) error {
	start := &prefixReader{ctx: ctx, src: t.src.current()}
	head, err := bundle.ReadHead(start, t.store.cfg.Trusted)
	start.close()
	if err != nil {
		return err
	}
	if head.Digest != t.want {
		return bundle.Reject(bundle.ErrDigest, "another bundle is there now, %v: fetch this one again from where it is", head.Digest)
	}
	t.head = &head
	t.donors = &donors{store: t.store, places: make(map[bundle.Digest]place)} // what is rotten here may be rotten elsewhere
	return t.fill(ctx, nil)
}

// patch writes the chunks that came into the image, while nothing is mounted or taken away.
func (s *Store) patch(ctx context.Context, r *record, p *part, f *os.File, rotten []int) error {
	if err := acquire(ctx, s.mounting); err != nil {
		return err
	}
	defer func() { <-s.mounting }()
	if _, unwritable := sealed(f); unwritable {
		return s.replacePart(ctx, r, p, f)
	}
	w, err := reopenForWriting(f)
	if err != nil {
		return fmt.Errorf("open image for its repair: %w", err)
	}
	defer func() { _ = w.Close() }()
	buf := make([]byte, bundle.MaxChunk)
	for _, i := range rotten {
		b := buf[:p.index[i].Plain]
		if _, err := p.file.ReadAt(b, p.plain[i]); err != nil {
			return fmt.Errorf("read stage: %w", err)
		}
		if sha256.Sum256(b) != p.index[i].Digest {
			return bundle.Reject(bundle.ErrDigest, "a chunk that was fetched is damaged in the stage: check the disk")
		}
		if err = s.step("write repair"); err == nil {
			_, err = w.WriteAt(b, p.plain[i])
		}
		if err != nil {
			return diskError("write image", err)
		}
	}
	return s.repaired(ctx, r, w, f)
}

// replacePart makes a whole image of the chunks that came and those that are good, and gives it the place of one that fs-verity guards, which
// cannot be written to. A module that runs on it reads it when it starts next.
func (s *Store) replacePart(ctx context.Context, r *record, p *part, f *os.File) error {
	buf := make([]byte, bundle.MaxChunk)
	for i, c := range p.index {
		b := buf[:c.Plain]
		if _, err := p.file.ReadAt(b, p.plain[i]); err == nil && sha256.Sum256(b) == c.Digest {
			continue
		}
		if _, err := f.ReadAt(b, p.plain[i]); err != nil {
			return fmt.Errorf("read image: %w", err)
		}
		err := s.step("write repair")
		if err == nil {
			_, err = p.file.WriteAt(b, p.plain[i])
		}
		if err != nil {
			return diskError("write stage", err)
		}
	}
	err := s.step("sync repair")
	if err == nil {
		err = p.file.Chmod(0o400)
	}
	if err == nil {
		err = p.file.Sync()
	}
	if err != nil {
		return diskError("sync image", err)
	}
	if err := checkImage(ctx, p.file, r.manifest.Image); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.records[r.Digest]; !ok || s.closed {
		return absent(r.Digest)
	}
	if err = s.step("rename repair"); err == nil {
		err = os.Rename(p.path, s.imagePath(r.manifest.Image.Digest))
	}
	if err == nil {
		err = syncDir(s.blobs())
	}
	return diskError("keep image", err)
}

// repaired syncs what was written through w to the image f, reads it whole, and has its mount known as ours again.
func (s *Store) repaired(ctx context.Context, r *record, w, f *os.File) error {
	err := s.step("sync repair")
	if err == nil {
		err = w.Sync()
	}
	if err != nil {
		return diskError("sync image", err)
	}
	if err := s.Verify(ctx, r.Image); err != nil {
		return err
	}
	return s.markAgain(r.Digest, f)
}

// reopenForWriting gives a descriptor of the same file to write through. Its mode keeps others out; we may change what we own.
func reopenForWriting(f *os.File) (*os.File, error) {
	self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	w, err := os.OpenFile(self, os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) && f.Chmod(0o600) == nil {
		w, err = os.OpenFile(self, os.O_RDWR, 0)
		_ = f.Chmod(0o400)
	}
	return w, err
}
