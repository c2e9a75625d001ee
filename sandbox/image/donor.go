package image

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"sort"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// donors are installed images whose chunks a new one may share: where each wanted chunk stands. A chunk is hashed again when it is
// read, so a rotten donor costs bytes and nothing else.
type donors struct {
	store  *Store
	places map[bundle.Digest]place
	files  map[bundle.Digest]*os.File
	rotten map[bundle.Digest]bool // images that held something else than their index says
}

// place is where a chunk stands.
type place struct {
	image bundle.Digest // zero: earlier in the new image itself
	at    int64
}

// mostDonors bounds how many images' indexes are read for a fetch.
const mostDonors = 64

// donors finds the wanted chunks in what is installed, first in the newest images of the same module.
func (s *Store) donors(m *bundle.Manifest, p *part) *donors {
	d := &donors{store: s, places: make(map[bundle.Digest]place), files: make(map[bundle.Digest]*os.File), rotten: make(map[bundle.Digest]bool)}
	wanted := make(map[bundle.Digest]bool, p.missed)
	for i, c := range p.index {
		if !p.have[i] {
			wanted[c.Digest] = true
		}
	}
	for i, c := range p.index {
		if _, known := d.places[c.Digest]; !known && wanted[c.Digest] && p.have[i] {
			d.places[c.Digest] = place{at: p.plain[i]}
		}
	}
	for _, r := range s.older(m, mostDonors) {
		index, err := readIndex(s.metaPath(r.Digest))
		if err != nil {
			continue // its next mount or scrub will tell
		}
		var at int64
		for _, c := range index {
			if _, known := d.places[c.Digest]; !known && wanted[c.Digest] {
				d.places[c.Digest] = place{image: r.manifest.Image.Digest, at: at}
			}
			at += int64(c.Plain)
		}
	}
	return d
}

// older lists installed bundles with other images than m's, of its own module first, newest first.
func (s *Store) older(m *bundle.Manifest, most int) []*record {
	var list []*record
	s.mu.Lock()
	for _, r := range s.records {
		if r.manifest.Image.Digest != m.Image.Digest {
			list = append(list, &r)
		}
	}
	s.mu.Unlock()
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if own := a.Name == m.Name; own != (b.Name == m.Name) {
			return own
		}
		return a.Sequence > b.Sequence || (a.Sequence == b.Sequence && bytes.Compare(a.Digest[:], b.Digest[:]) < 0)
	})
	return list[:min(len(list), most)]
}

// readIndex reads the index of an installed bundle.
func readIndex(path string) (bundle.Index, error) {
	f, err := openSealed(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	in := bufio.NewReader(f)
	head, err := bundle.ReadHeadUnverified(in)
	if err != nil {
		return nil, err
	}
	return head.ReadIndex(in)
}

// arrived notes that the new image itself has a chunk now.
func (d *donors) arrived(p *part, i int) {
	if c := p.index[i]; !d.has(c) {
		d.places[c.Digest] = place{at: p.plain[i]}
	}
}

func (d *donors) has(c bundle.Chunk) bool {
	pl, ok := d.places[c.Digest]
	return ok && !d.rotten[pl.image]
}

// read fills buf with the chunk, or reports that it is not to be had here after all.
func (d *donors) read(p *part, c bundle.Chunk, buf []byte) ([]byte, bool) {
	pl, ok := d.places[c.Digest]
	if !ok {
		return nil, false
	}
	f, err := p.file, error(nil)
	if !pl.image.IsZero() {
		f, err = d.open(pl.image)
	}
	if err == nil {
		buf = buf[:c.Plain]
		if _, err = f.ReadAt(buf, pl.at); err == nil && sha256.Sum256(buf) == c.Digest {
			return buf, true
		}
	}
	delete(d.places, c.Digest)
	if !pl.image.IsZero() && !d.rotten[pl.image] {
		d.rotten[pl.image] = true
		d.store.cfg.Logger.Warn("installed image is damaged: what it shares with a new one is fetched", "image", pl.image.String(), "err", err)
	}
	return nil, false
}

func (d *donors) open(image bundle.Digest) (*os.File, error) {
	if f, ok := d.files[image]; ok {
		if f == nil {
			return nil, errors.New("cannot be opened")
		}
		return f, nil
	}
	f, err := openSealed(d.store.imagePath(image))
	d.files[image] = f
	return f, err
}

func (d *donors) close() {
	if d == nil {
		return
	}
	for _, f := range d.files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Limits of a plan.
const (
	smallGap     = 8 << 10 // stored bytes between two wanted chunks that are fetched rather than asked around
	mostRequests = 100     // ranges of one transfer; above, gaps grow
)

// plan marks the chunks that come over the network: those that are nowhere here, and those in small gaps between such.
func (d *donors) plan(p *part) []bool {
	fetch := make([]bool, len(p.index))
	for gap := int64(smallGap); ; gap *= 2 {
		requests, last := 0, -1 // last chunk that is fetched
		comes := make(map[bundle.Digest]bool)
		for i, c := range p.index {
			fetch[i] = false
			if p.have[i] || d.has(c) || comes[c.Digest] {
				continue
			}
			fetch[i], comes[c.Digest] = true, true
			switch {
			case last < 0 || p.stored[i]-p.stored[last+1] > gap:
				requests++
			default:
				for j := last + 1; j < i; j++ {
					fetch[j] = true
				}
			}
			last = i
		}
		if requests <= mostRequests {
			return fetch
		}
	}
}
