package image

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// admitSpace says before the first byte whether size more bytes, of which have are already in the part file, fit: under the
// configured limit and on the disk with its reserve.
func (s *Store) admitSpace(size, have int64) error {
	if limit := s.cfg.MaxBytes; limit > 0 {
		if used := s.used(); used+size > limit {
			return bundle.Reject(bundle.ErrSpace, "the image needs %d bytes and %d of %d are in use, %d too many: remove images, or raise bundles.max_bytes",
				size, used, limit, used+size-limit)
		}
	}
	return s.onDisk(size, have)
}

// onDisk is the part of admitSpace that asks the disk alone: for what takes the place of an installed image.
func (s *Store) onDisk(size, have int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Dir, &st); err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	block := uint64(max(st.Bsize, 1))
	free := int64(min(st.Bavail*block, math.MaxInt64))
	reserve := s.cfg.Reserve
	if reserve == 0 {
		reserve = max(minReserve, int64(min(st.Blocks*block, math.MaxInt64)/20))
	}
	if missing := size - have + reserve - free; missing > 0 {
		return bundle.Reject(bundle.ErrSpace, "the image needs %d bytes and %d are to stay free, but the disk has %d, %d too few: remove images or logs",
			size-have, reserve, free, missing)
	}
	return nil
}

// used is what the installed images take, each once.
func (s *Store) used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := make(map[bundle.Digest]bool)
	var sum int64
	for _, r := range s.records {
		if d := r.manifest.Image.Digest; !seen[d] {
			seen[d] = true
			sum += r.Size
		}
	}
	return sum
}
