package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// mergeSuffix ends the name of an image that is being merged. It is of no use to the next agent, which starts again.
const mergeSuffix = ".merge"

// PhaseMerge comes after the transfer of an OCI image: its layers become one image.
const PhaseMerge Phase = "merge"

// Load installs an image from an OCI layout or from what `docker save` wrote, at a path of this device. want, when not empty, says which
// of several images there is meant; name, when not empty, is a reference that the image is to be known by, beside those it brought.
// From then on that reference needs no registry.
func (s *Store) Load(ctx context.Context, file, want, name string, progress func(Progress)) (Image, error) {
	img, err := s.loadArchive(ctx, file, want, name, progress)
	if err != nil {
		return Image{}, fmt.Errorf("load image: %w", err)
	}
	return img, nil
}

func (s *Store) loadArchive(ctx context.Context, file, want, name string, progress func(Progress)) (Image, error) {
	a, err := oci.OpenArchive(file)
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = a.Close() }()
	found, err := a.Image(want, s.cfg.Machine.oci(), s.layerLimit())
	if err != nil {
		return Image{}, err
	}
	names := found.Names
	if name != "" {
		r, err := oci.ParseReference(name)
		if err != nil {
			return Image{}, err
		}
		if r.Tag == "" {
			return Image{}, bundle.Reject(bundle.ErrReference, "the name %q is a digest: give one with a tag", name)
		}
		r.Digest = bundle.Digest{}
		names = append([]string{r.String()}, names...)
	}
	if err := acquire(ctx, s.fetching); err != nil {
		return Image{}, err
	}
	defer func() { <-s.fetching }()
	if r, err := s.record(found.Digest); err == nil && r.OCI != nil && s.Verify(ctx, r.Image) != nil && ctx.Err() == nil {
		if _, err := s.remerge(ctx, &r, found, func(Progress) {}); err != nil { // it rotted: this is how it is repaired
			return Image{}, err
		}
	}
	return s.installOCI(ctx, found, OCI{Names: slices.Compact(names), Loaded: true, Kept: true}, progress)
}

// oci is the machine in OCI's words.
func (m Machine) oci() oci.Machine { return oci.Machine{Arch: m.Arch, Variant: m.Variant} }

// layerLimit bounds one layer, and the files of an image together.
func (s *Store) layerLimit() int64 {
	if s.cfg.MaxBytes > 0 {
		return s.cfg.MaxBytes
	}
	return 4 << 30
}

// installOCI merges the layers of an image and makes it an installed one. The caller holds the token of fetches.
func (s *Store) installOCI(ctx context.Context, img *oci.Image, about OCI, progress func(Progress)) (Image, error) {
	if r, err := s.record(img.Digest); err == nil || !errors.Is(err, bundle.ErrAbsent) {
		if err == nil && r.OCI == nil {
			err = bundle.Reject(bundle.ErrDigest, "a bundle has the digest %v of this image", img.Digest)
		}
		if err != nil {
			return Image{}, err
		}
		return s.renamed(img.Digest, about)
	}
	about.Index, about.Config = img.Index, img.Config
	if progress == nil {
		progress = func(Progress) {}
	}
	name := img.Digest.String()
	if len(about.Names) > 0 {
		name = about.Names[0]
	}
	f, err := s.merge(ctx, img, s.admitSpace, func(p Progress) { p.Image = name; progress(p) })
	if err != nil {
		return Image{}, err
	}
	defer f.discard() // gone when it was kept
	about.Stripped = f.Stripped
	return s.keepMerged(f, img.Digest, about)
}

// merged is a file in the stage whose layers became an image, synced and read back from the disk.
type merged struct {
	*os.File
	oci.Merged

	path string
	info bundle.ImageInfo
}

func (m *merged) discard() {
	_ = m.Close()
	_ = os.Remove(m.path)
}

// merge has the layers of an image become one in the stage, when admit has room for it.
func (s *Store) merge(ctx context.Context, img *oci.Image, admit func(size, have int64) error, progress func(Progress)) (*merged, error) {
	m := &merged{path: filepath.Join(s.stage(), img.Digest.Hex()+mergeSuffix)}
	err := s.step("open merge")
	if err == nil {
		m.File, err = openOwn(m.path)
	}
	if err != nil {
		return nil, diskError("open stage", err)
	}
	if err = m.Truncate(0); err != nil {
		err = fmt.Errorf("open stage: %w", err)
	}
	progress(Progress{Phase: PhaseMerge})
	if err == nil {
		m.Merged, err = oci.Merge(ctx, img.Layers, stepFile{m.File, s}, oci.Limits{Bytes: s.layerLimit()}, func(size int64) error {
			if err := admit(size, 0); err != nil {
				return err
			}
			return s.room(m.File, size)
		})
		err = diskError("merge layers", err)
	}
	if err == nil {
		progress(Progress{Phase: PhaseVerify, Done: m.Size, Total: m.Size})
		err = s.readBack(ctx, m)
	}
	if err != nil {
		m.discard()
		return nil, err
	}
	return m, nil
}

// room takes the blocks for an image.
func (s *Store) room(f *os.File, size int64) error {
	err := s.step("reserve merge")
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// stepFile is an image being merged, with a step before each write.
type stepFile struct {
	*os.File
	store *Store
}

func (f stepFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.store.step("write merge"); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, at)
}

// readBack reads a merged image from the disk and walks it.
func (s *Store) readBack(ctx context.Context, m *merged) error {
	err := s.step("sync merge")
	if err == nil {
		err = m.Sync()
	}
	if err != nil {
		return diskError("sync image", err)
	}
	_ = unix.Fadvise(int(m.Fd()), 0, 0, unix.FADV_DONTNEED) // so that the disk is read, not our own memory
	if err := s.step("read merge"); err != nil {
		return diskError("read image", err)
	}
	content := bundle.NewContent()
	if _, err := io.Copy(content, &contextReader{ctx, io.NewSectionReader(m.File, 0, m.Size)}); err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	m.info = content.Info(bundle.FormatEROFS)
	_, err = bundle.CheckImage(m.File, m.Size)
	return err
}

// seal makes a merged image one that nobody writes to.
func (s *Store) seal(m *merged) error {
	err := s.step("seal merge")
	if err == nil {
		err = m.Chmod(0o400)
	}
	if err == nil {
		err = s.step("sync sealed merge")
	}
	if err == nil {
		err = m.Sync()
	}
	return diskError("seal image", err)
}

// settleLocked gives a sealed image its place, whatever was there.
func (s *Store) settleLocked(m *merged) error {
	err := s.step("rename merge")
	if err == nil {
		err = os.Rename(m.path, s.imagePath(m.info.Digest))
	}
	if err == nil {
		err = s.step("sync blobs")
	}
	if err == nil {
		err = syncDir(s.blobs())
	}
	return diskError("keep image", err)
}

// keepMerged makes a merged image visible.
func (s *Store) keepMerged(m *merged, digest bundle.Digest, about OCI) (Image, error) {
	if err := s.seal(m); err != nil {
		return Image{}, err
	}
	info := m.info
	of := ociFile{Version: ociVersion, Digest: digest, OCI: about}
	of.Image.Digest, of.Image.Verity, of.Image.Size = info.Digest, info.Verity, info.Size
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Image{}, ErrClosed
	}
	if err := s.settleLocked(m); err != nil {
		return Image{}, err
	}
	img, err := s.keepOCILocked(of.record(s.cfg.Now()))
	if err == nil {
		s.cfg.Logger.Info("image installed", "image", digest.String(), "names", about.Names, "bytes", m.Size,
			"set_id_removed", about.Stripped.SetID, "attributes_removed", about.Stripped.Xattrs)
	}
	return img, err
}
