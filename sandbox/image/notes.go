package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// note is what is remembered of an installed image beside what it says itself. Losing it costs a pin, a way back and a repair, never
// an image that is in use.
type note struct {
	Reference string    `json:"reference,omitempty"` // where a bundle came from, or an image by its digest; what rots is fetched from there
	Pinned    bool      `json:"pinned,omitempty"`    // kept whether a module needs it or not
	Active    bool      `json:"active,omitempty"`    // a module needs it, by the last GC
	Previous  bool      `json:"previous,omitempty"`  // what a module needed before its present one
	Checked   time.Time `json:"checked,omitzero"`    // when it was last read whole and found good
}

// notes are a file of the store.
type notes struct {
	Version int                    `json:"version"` // 1
	Images  map[bundle.Digest]note `json:"images"`
}

const (
	notesVersion = 1
	notesLimit   = 4 << 20 // bytes
)

func (s *Store) notesPath() string { return filepath.Join(s.cfg.Dir, "notes.json") }

// readNotes starts anew with a file that it does not understand: nothing in it keeps a device safe.
func readNotes(path string) (notes, error) {
	fresh := notes{Version: notesVersion, Images: make(map[bundle.Digest]note)}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, notesLimit))
	if err != nil {
		return fresh, err
	}
	n, err := parseNotes(text)
	if err != nil {
		return fresh, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

func parseNotes(text []byte) (notes, error) {
	var n notes
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil {
		return n, err
	}
	if n.Version != notesVersion || n.Images == nil || d.More() {
		return n, fmt.Errorf("version %d, want %d", n.Version, notesVersion)
	}
	return n, nil
}

// noteLocked changes what is remembered of an image.
func (s *Store) noteLocked(d bundle.Digest, change func(*note)) error {
	was, known := s.notes.Images[d]
	n := was
	change(&n)
	if n == was {
		return nil
	}
	s.notes.Images[d] = n
	if n == (note{}) {
		delete(s.notes.Images, d)
	}
	err := s.writeNotesLocked()
	if err != nil && known {
		s.notes.Images[d] = was
	} else if err != nil {
		delete(s.notes.Images, d)
	}
	return err
}

// writeNotesLocked forgets images that are gone, but for what an operator asked to keep: it may come again.
func (s *Store) writeNotesLocked() error {
	for d, n := range s.notes.Images {
		if _, ok := s.records[d]; !ok && !n.Pinned {
			delete(s.notes.Images, d)
		}
	}
	text, err := json.MarshalIndent(s.notes, "", "\t")
	if err == nil {
		err = s.replaceFile("notes", s.notesPath(), append(text, '\n'))
	}
	if err != nil {
		return diskError("note image", err)
	}
	return nil
}

// cameFromLocked notes where a bundle or an image was fetched. That it could not be noted costs a repair at most.
func (s *Store) cameFromLocked(d bundle.Digest, reference string) {
	err := s.noteLocked(d, func(n *note) { n.Reference = reference })
	if err != nil {
		s.cfg.Logger.Warn("where an image came from is not noted, and it cannot be repaired", "image", d.String(), "err", err)
	}
}

// retainedLocked returns what is to be remembered when keep is what modules need now. What a module needed before stays, as the way
// back, until it is replaced once more or the module is gone.
func (s *Store) retainedLocked(keep []bundle.Digest) map[bundle.Digest]note {
	needed, leaving := make(map[string]bool), make(map[string]bool) // by name
	for d, r := range s.records {
		if slices.Contains(keep, d) {
			needed[r.Name] = true
		} else if s.notes.Images[d].Active {
			leaving[r.Name] = true
		}
	}
	all := make(map[bundle.Digest]note, len(s.records))
	for d, r := range s.records {
		n := s.notes.Images[d]
		was := n.Active
		n.Active = slices.Contains(keep, d)
		switch {
		case n.Active, !needed[r.Name]:
			n.Previous = false
		case was:
			n.Previous = true
		case leaving[r.Name]: // the one that leaves now takes its place
			n.Previous = false
		}
		all[d] = n
	}
	return all
}

// retainLocked notes what modules need now.
func (s *Store) retainLocked(keep []bundle.Digest) {
	changed := false
	for d, n := range s.retainedLocked(keep) {
		if s.notes.Images[d] != n {
			s.notes.Images[d], changed = n, true
		}
	}
	if !changed {
		return
	}
	if err := s.writeNotesLocked(); err != nil { // a full disk must not keep us from making room
		s.cfg.Logger.Warn("what modules need is not noted", "err", err)
	}
}

// Pin keeps an installed image until it is unpinned, whether a module needs it or not. Unpinned, an image that was pulled or loaded by hand
// is not kept for its name any more either.
func (s *Store) Pin(digest bundle.Digest, pinned bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	r, ok := s.records[digest]
	if !ok && (pinned || !s.notes.Images[digest].Pinned) {
		return absent(digest)
	}
	if ok && !pinned && r.OCI != nil && r.OCI.Kept {
		changed := *r.OCI
		changed.Kept, r.OCI = false, &changed
		if err := s.writeOCILocked(r); err != nil {
			return err
		}
	}
	return s.noteLocked(digest, func(n *note) { n.Pinned = pinned })
}

// Standing is what keeps an image on the device.
type Standing struct {
	Pinned   bool
	Active   bool      // a module needs it
	Previous bool      // a module needed it before
	Checked  time.Time // when it was last read whole and found good; its installation, when that was not since
}

// Standing of an installed image.
func (s *Store) Standing(img Image) Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.notes.Images[img.Digest]
	at := img.Installed
	if n.Checked.After(at) {
		at = n.Checked
	}
	return Standing{Pinned: n.Pinned, Active: n.Active, Previous: n.Previous, Checked: at}
}

// checkedLocked notes that an image was read whole, that long ago. A clock that goes wrong costs another reading.
func (s *Store) checkedLocked(d bundle.Digest, ago time.Duration) {
	if _, ok := s.records[d]; !ok {
		return
	}
	at := s.cfg.Now().Add(-ago).UTC().Truncate(time.Second)
	if err := s.noteLocked(d, func(n *note) { n.Checked = at }); err != nil {
		s.cfg.Logger.Warn("that an image was checked is not noted", "image", d.String(), "err", err)
	}
}
