package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// staleAfter is the age at which a part file that nobody went on with is removed.
const staleAfter = 7 * 24 * time.Hour

// Garbage returns what GC would remove: everything installed that is neither in keep nor mounted, that no module needed before its
// present image, and that no operator pinned, or put here under a name it still has.
func (s *Store) Garbage(keep []bundle.Digest) ([]Image, error) {
	s.mu.Lock()
	notes := s.retainedLocked(keep)
	s.mu.Unlock()
	var garbage []Image
	for _, img := range s.List() {
		if slices.Contains(keep, img.Digest) || img.OCI != nil && img.OCI.Kept && len(img.OCI.Names) > 0 {
			continue
		}
		if n := notes[img.Digest]; n.Pinned || n.Previous {
			continue
		}
		entries, err := mountsAt(s.point(img.Digest))
		if err != nil {
			return nil, err
		}
		if len(entries) == 0 {
			garbage = append(garbage, img)
		}
	}
	return garbage, nil
}

// GC removes what Garbage names, image files that no installed bundle has, and part files of a week ago. It returns what it
// removed. keep is what modules need now; what one of them needed at the GC before stays as the way back. An image that was fetched
// but is not in keep yet is removed too: keep it from the moment Fetch returns.
func (s *Store) GC(ctx context.Context, keep []bundle.Digest) ([]Image, error) {
	if err := acquire(ctx, s.mounting); err != nil { // nothing is mounted while we look
		return nil, err
	}
	defer func() { <-s.mounting }()
	s.mu.Lock()
	s.retainLocked(keep)
	s.mu.Unlock()
	garbage, err := s.Garbage(keep)
	if err != nil {
		return nil, fmt.Errorf("collect images: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	for i, img := range garbage {
		if s.notes.Images[img.Digest].Pinned { // in between
			continue
		}
		if err := s.removeLocked(img.Digest); err != nil {
			return garbage[:i], fmt.Errorf("collect images: %w", diskError("remove bundle", err))
		}
		s.cfg.Logger.Info("image removed", "module", img.Name, "image", img.Digest.String())
	}
	if err := s.sweepLocked(); err != nil {
		return garbage, fmt.Errorf("collect images: %w", err)
	}
	return garbage, nil
}

// removeLocked makes an installed image absent. Its file goes with the sweep.
func (s *Store) removeLocked(d bundle.Digest) error {
	if err := s.step("remove bundle"); err != nil {
		return err
	}
	if err := s.forget(d); err != nil {
		return err
	}
	delete(s.records, d)
	return nil
}

// sweepLocked removes files that no record needs: images, damaged .spm files, leftovers of a power cut, old part files.
func (s *Store) sweepLocked() error {
	images := make(map[bundle.Digest]bool)
	for _, r := range s.records {
		images[r.manifest.Image.Digest] = true
	}
	entries, err := os.ReadDir(s.blobs())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		needed := false
		if d, ok := hasSuffixDigest(e.Name(), imageSuffix); ok {
			needed = images[d]
		}
		for _, suffix := range []string{metaSuffix, ociSuffix} {
			if d, ok := hasSuffixDigest(e.Name(), suffix); ok {
				_, needed = s.records[d]
			}
		}
		if !needed {
			errs = append(errs, os.RemoveAll(filepath.Join(s.blobs(), e.Name())))
		}
	}
	select {
	case s.fetching <- struct{}{}: // no fetch is writing there
		errs = append(errs, s.sweepStage())
		<-s.fetching
	default:
	}
	return errors.Join(append(errs, syncDir(s.blobs()))...)
}

func (s *Store) sweepStage() error {
	entries, err := os.ReadDir(s.stage())
	if err != nil {
		return err
	}
	oldest := s.cfg.Now().Add(-staleAfter)
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.ModTime().After(oldest) {
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(s.stage(), e.Name())))
	}
	return errors.Join(errs...)
}
