package image

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

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
	img, err := s.keepLocked(head, index)
	if err == nil {
		s.cameFromLocked(img.Digest, t.reference)
	}
	return img, err
}

// install reads the image back from the disk, checks it, and makes it and the bundle visible.
func (t *transfer) install(ctx context.Context) (Image, error) {
	t.progress(PhaseVerify)
	p, info := t.part, t.head.Manifest.Image
	err := t.store.step("sync image")
	if err == nil {
		err = p.file.Sync()
	}
	if err != nil {
		return Image{}, diskError("sync image", err)
	}
	_ = unix.Fadvise(int(p.file.Fd()), 0, 0, unix.FADV_DONTNEED) // so that the disk is read, not our own memory
	if err := t.store.step("read image"); err != nil {
		return Image{}, diskError("read image", err)
	}
	if err := checkImage(ctx, p.file, info); err != nil {
		return Image{}, err
	}
	if err = t.store.step("seal image"); err == nil {
		err = p.file.Chmod(0o400)
	}
	if err == nil {
		err = t.store.step("sync sealed image")
	}
	if err == nil {
		err = p.file.Sync()
	}
	if err != nil {
		return Image{}, diskError("seal image", err)
	}
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sequenceLocked(*t.head); err != nil { // a Commit may have come in between
		return Image{}, err
	}
	if err = s.step("rename image"); err == nil {
		err = os.Rename(p.path, s.imagePath(info.Digest))
	}
	if err != nil {
		return Image{}, diskError("keep image", err)
	}
	p.close()
	t.part = nil
	img, err := s.keepLocked(*t.head, p.index)
	if err == nil {
		_ = os.Remove(s.resumePath(info.Digest))
		t.dropTail()
		s.cameFromLocked(img.Digest, t.reference)
	}
	return img, err
}

// keepLocked writes the .spm, which makes the bundle an installed one. The image is in place.
func (s *Store) keepLocked(head bundle.Head, index bundle.Index) (Image, error) {
	err := s.step("sync blobs")
	if err == nil {
		err = syncDir(s.blobs())
	}
	if err == nil {
		err = s.replaceFile("bundle", s.metaPath(head.Digest), bundle.AppendPrefix(nil, head.Envelope, index))
	}
	if err != nil {
		return Image{}, diskError("keep bundle", err)
	}
	r := newRecord(head, s.cfg.Now())
	s.records[head.Digest] = r
	s.cfg.Logger.Info("bundle installed", "module", r.Name, "image", r.Digest.String(), "version", r.Version, "sequence", r.Sequence)
	return r.Image, nil
}
