package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// repairOCI reads a merged image whole, and when it is not what it was, makes it again of its layers. Where they come from was noted when it
// was pulled; what an archive brought has to be loaded again.
func (s *Store) repairOCI(ctx context.Context, r *record) (int, error) {
	rotten := s.Verify(ctx, r.Image)
	if rotten == nil || ctx.Err() != nil {
		return 0, rotten
	}
	s.mu.Lock()
	reference := s.notes.Images[r.Digest].Reference
	s.mu.Unlock()
	if reference == "" && !r.OCI.Loaded && len(r.OCI.Names) > 0 { // pulled before references were noted
		reference = r.OCI.Names[0]
	}
	ref, err := oci.ParseReference(reference)
	if reference == "" || err != nil {
		return 0, bundle.Reject(bundle.ErrDigest, "it is damaged, and it came with an archive: load that again with sandpiper image load")
	}
	ref.Tag, ref.Digest = "", r.Digest
	s.cfg.Logger.Warn("installed image is damaged", "image", r.Digest.String(), "err", rotten)
	if err := acquire(ctx, s.fetching); err != nil {
		return 0, err
	}
	defer func() { <-s.fetching }()
	defer s.progressed(nil)
	progress := s.tracked(ref, nil)
	var p oci.Pull
	err = s.persist(ctx, ref, func() (err error) {
		p, err = s.registries.Resolve(ctx, ref, s.cfg.Machine.oci(), s.layerLimit(), func(bundle.Digest) bool { return false })
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := s.pullLayers(ctx, ref, p, progress); err != nil {
		return 0, err
	}
	n, err := s.remerge(ctx, r, p.Image, progress)
	if err == nil || bundle.CodeOf(err).Final() {
		s.dropLayers(p)
	}
	return n, err
}

// remerge merges the layers of an installed image again and has its file hold the same bytes as at first. An image that nobody has mounted is
// exchanged for the new one in one step, and so is one that fs-verity guards, which the module reads when it starts next. Any other gets what it lost in its place, so that the module that runs reads it right:
// each piece that is written was compared with the whole before, so a power cut leaves some of them good and some as they were, and the
// next repair starts again. It returns how many pieces were not as they should be. The caller holds the token of fetches.
func (s *Store) remerge(ctx context.Context, r *record, img *oci.Image, progress func(Progress)) (int, error) {
	if img.Digest != r.Digest {
		return 0, bundle.Reject(bundle.ErrDigest, "the registry gives image %v for %v", img.Digest, r.Digest)
	}
	m, err := s.merge(ctx, img, s.onDisk, progress)
	if err != nil {
		return 0, err
	}
	defer m.discard()
	if m.info != r.manifest.Image {
		return 0, bundle.Reject(bundle.ErrDigest, "this agent lays the image out in another way than the one that installed it: it is pulled anew when it is mounted next")
	}
	if err := acquire(ctx, s.mounting); err != nil {
		return 0, err
	}
	defer func() { <-s.mounting }()
	n, err := s.exchange(ctx, r, m)
	if err == nil {
		s.cfg.Logger.Info("installed image is repaired", "image", r.Digest.String(), "chunks", n)
	}
	return n, err
}

// exchange puts a merged image's bytes in the place of an installed one's. The caller holds the token of mounts.
func (s *Store) exchange(ctx context.Context, r *record, m *merged) (int, error) {
	f, err := openSealed(s.imagePath(m.info.Digest))
	if err != nil { // gone, or no file any more: there is nothing to compare with
		return 1, s.swap(r, m)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	wrong, err := differing(ctx, f, m)
	if err != nil {
		return 0, err
	}
	ours, others, err := s.mounted(r.Digest)
	_, unwritable := sealed(f)
	switch {
	case err != nil:
		return 0, err
	case !ours && others == 0 || info.Size() != m.Size || unwritable:
		return max(1, len(wrong)), s.swap(r, m)
	case len(wrong) == 0:
		return 0, nil
	}
	return len(wrong), s.overwrite(ctx, r, m, f, wrong)
}

// piece is how much of an image is compared and written at once, in bytes.
const piece = bundle.MaxChunk

// differing lists the offsets of pieces that are not the same in both. A sector that cannot be read is not.
func differing(ctx context.Context, f *os.File, m *merged) ([]int64, error) {
	was, want := make([]byte, piece), make([]byte, piece)
	var wrong []int64
	for at := int64(0); at < m.Size; at += piece {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		n, err := m.ReadAt(want[:min(piece, m.Size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read stage: %w", err)
		}
		if got, err := f.ReadAt(was[:n], at); got != n || err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(was[:n], want[:n]) {
			wrong = append(wrong, at)
		}
	}
	return wrong, nil
}

// swap gives the merged image the place of the installed one, which is not mounted.
func (s *Store) swap(r *record, m *merged) error {
	if err := s.seal(m); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.records[r.Digest]; !ok || s.closed {
		return absent(r.Digest)
	}
	return s.settleLocked(m)
}

// overwrite writes pieces of the merged image over those of a mounted one.
func (s *Store) overwrite(ctx context.Context, r *record, m *merged, f *os.File, wrong []int64) error {
	w, err := reopenForWriting(f)
	if err != nil {
		return fmt.Errorf("open image for its repair: %w", err)
	}
	defer func() { _ = w.Close() }()
	buf := make([]byte, piece)
	for _, at := range wrong {
		b := buf[:min(piece, m.Size-at)]
		if _, err := m.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read stage: %w", err)
		}
		if err = s.step("write repair"); err == nil {
			_, err = w.WriteAt(b, at)
		}
		if err != nil {
			return diskError("write image", err)
		}
	}
	return s.repaired(ctx, r, w, f)
}
