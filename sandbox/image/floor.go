package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// floors is the durable memory against rollback. It is a file of its own, so that it outlives a damaged database.
type floors struct {
	Version int              `json:"version"` // 1
	Modules map[string]floor `json:"modules"`
}

// floor of one module.
type floor struct {
	Sequence uint64        `json:"sequence"` // below it nothing is installed
	Latest   uint64        `json:"latest"`   // the highest sequence ever committed
	Digest   bundle.Digest `json:"digest"`   // the bundle that had it
}

const (
	floorsVersion = 1
	floorsLimit   = 4 << 20 // bytes
)

// readFloors refuses a file it does not understand: without it an old bundle could be installed again.
func readFloors(path string) (floors, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return floors{Version: floorsVersion, Modules: make(map[string]floor)}, nil
	}
	if err != nil {
		return floors{}, fmt.Errorf("read floors: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, floorsLimit))
	if err != nil {
		return floors{}, fmt.Errorf("read floors: %w", err)
	}
	fl, err := parseFloors(text)
	if err != nil {
		return floors{}, fmt.Errorf("read floors: %s: %w: restore it, or remove it and accept that old bundles can be installed again", path, err)
	}
	return fl, nil
}

func parseFloors(text []byte) (floors, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var fl floors
	if err := d.Decode(&fl); err != nil {
		return floors{}, err
	}
	if fl.Version != floorsVersion || fl.Modules == nil || d.More() {
		return floors{}, fmt.Errorf("version %d, want %d", fl.Version, floorsVersion)
	}
	return fl, nil
}

func (fl floors) print() ([]byte, error) {
	text, err := json.MarshalIndent(fl, "", "\t")
	return append(text, '\n'), err
}

// Commit records that the image proved itself: from now on nothing older of its module is installed. A manifest may name a lower
// floor of its own, so that its publisher can take releases back. Committing again, or an older image, changes nothing. What is
// already installed stays usable: going back to the previous image needs no new installation.
func (s *Store) Commit(digest bundle.Digest) error {
	r, err := s.record(digest)
	if err != nil || r.OCI != nil { // an image without a sequence has no floor: its deployment names it
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.floors.Modules[r.Name]
	next := now
	lowest := r.Sequence
	if r.manifest.Floor != 0 {
		lowest = r.manifest.Floor
	}
	next.Sequence = max(now.Sequence, lowest)
	if r.Sequence >= now.Latest {
		next.Latest, next.Digest = r.Sequence, r.Digest
	}
	if next == now {
		return nil
	}
	s.floors.Modules[r.Name] = next
	text, err := s.floors.print()
	if err == nil {
		err = s.replaceFile("floors", s.floorsPath(), text)
	}
	if err != nil {
		s.floors.Modules[r.Name] = now
		return fmt.Errorf("commit %s %v: %w", r.Name, digest, diskError("write floors", err))
	}
	return nil
}

// Floor returns the lowest sequence of the module that may be installed.
func (s *Store) Floor(module string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.floors.Modules[module].Sequence
}
