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
	path := filepath.Join(s.stage(), img.Digest.Hex()+mergeSuffix)
	err := s.step("open merge")
	var f *os.File
	if err == nil {
		f, err = openOwn(path)
	}
	if err != nil {
		return Image{}, diskError("open stage", err)
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(path) // gone when it was kept
	}()
	if err := f.Truncate(0); err != nil {
		return Image{}, fmt.Errorf("open stage: %w", err)
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	name := img.Digest.String()
	if len(about.Names) > 0 {
		name = about.Names[0]
	}
	progress(Progress{Phase: PhaseMerge, Image: name})
	merged, err := oci.Merge(ctx, img.Layers, stepFile{f, s}, oci.Limits{Bytes: s.layerLimit()}, func(size int64) error { return s.room(f, size) })
	if err != nil {
		return Image{}, diskError("merge layers", err)
	}
	about.Stripped = merged.Stripped
	progress(Progress{Phase: PhaseVerify, Image: name, Done: merged.Size, Total: merged.Size})
	return s.keepMerged(ctx, f, path, img.Digest, merged.Size, about)
}

// room refuses an image for which there is none, and takes it for one that has it.
func (s *Store) room(f *os.File, size int64) error {
	if err := s.admitSpace(size, 0); err != nil {
		return err
	}
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

// keepMerged reads a merged image back from the disk, walks it, and makes it visible.
func (s *Store) keepMerged(ctx context.Context, f *os.File, path string, digest bundle.Digest, size int64, about OCI) (Image, error) {
	err := s.step("sync merge")
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return Image{}, diskError("sync image", err)
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // so that the disk is read, not our own memory
	if err := s.step("read merge"); err != nil {
		return Image{}, diskError("read image", err)
	}
	content := bundle.NewContent()
	if _, err := io.Copy(content, &contextReader{ctx, io.NewSectionReader(f, 0, size)}); err != nil {
		return Image{}, fmt.Errorf("read image: %w", err)
	}
	info := content.Info(bundle.FormatEROFS)
	if _, err := bundle.CheckImage(f, size); err != nil {
		return Image{}, err
	}
	if err = s.step("seal merge"); err == nil {
		err = f.Chmod(0o400)
	}
	if err == nil {
		err = s.step("sync sealed merge")
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return Image{}, diskError("seal image", err)
	}
	of := ociFile{Version: ociVersion, Digest: digest, OCI: about}
	of.Image.Digest, of.Image.Verity, of.Image.Size = info.Digest, info.Verity, info.Size
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Image{}, ErrClosed
	}
	if err = s.step("rename merge"); err == nil {
		err = os.Rename(path, s.imagePath(info.Digest))
	}
	if err == nil {
		err = s.step("sync blobs")
	}
	if err == nil {
		err = syncDir(s.blobs())
	}
	if err != nil {
		return Image{}, diskError("keep image", err)
	}
	img, err := s.keepOCILocked(of.record(s.cfg.Now()))
	if err == nil {
		s.cfg.Logger.Info("image installed", "image", digest.String(), "names", about.Names, "bytes", size,
			"set_id_removed", about.Stripped.SetID, "attributes_removed", about.Stripped.Xattrs)
	}
	return img, err
}
