package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
)

// finder finds for a place in the new image one in the old that goes on alike. Chunks that are in both are found by their digest; for
// the rest the old chunks that are not in the new image, and their neighbours, lie in a pool of their own, which is sorted: two
// releases share most of their bytes, and sorting those would cost the most and find nothing new.
type finder struct {
	old, next []byte
	chunks    []piece // of next, in order; old < 0 = not in the old image
	pool      []byte
	pieces    []piece // of the pool, in order
	sa        []int32 // of the pool
}

// piece is a stretch of one text and where it stands in the old image.
type piece struct{ start, end, old int }

const mostPool = math.MaxInt32 - 1 // bytes: the suffix array counts in 31 bits

func newFinder(old, next []byte) (*finder, error) {
	f := &finder{old: old, next: next}
	oldCuts, err := digests(old)
	if err != nil {
		return nil, err
	}
	newCuts, err := digests(next)
	if err != nil {
		return nil, err
	}
	first := make(map[Digest]int) // where each chunk of the old image is first
	at := 0
	for _, c := range oldCuts {
		if _, ok := first[c.Digest]; !ok {
			first[c.Digest] = at
		}
		at += int(c.Plain)
	}
	shared := make(map[Digest]bool)
	at = 0
	for _, c := range newCuts {
		p := piece{start: at, end: at + int(c.Plain), old: -1}
		if place, ok := first[c.Digest]; ok {
			p.old, shared[c.Digest] = place, true
		}
		f.chunks = append(f.chunks, p)
		at = p.end
	}
	near := func(i int) bool { return i >= 0 && i < len(oldCuts) && !shared[oldCuts[i].Digest] }
	at = 0
	for i, c := range oldCuts {
		end := at + int(c.Plain)
		if near(i-1) || near(i) || near(i+1) {
			if n := len(f.pieces); n > 0 && f.pieces[n-1].old+f.pieces[n-1].end-f.pieces[n-1].start == at {
				f.pieces[n-1].end += int(c.Plain)
			} else {
				f.pieces = append(f.pieces, piece{start: len(f.pool), end: len(f.pool) + int(c.Plain), old: at})
			}
			f.pool = append(f.pool, old[at:end]...)
		}
		at = end
	}
	if len(f.pool) > mostPool {
		return nil, fmt.Errorf("%d bytes of the old image are not in the new one: up to %d are compared", len(f.pool), mostPool)
	}
	f.sa = suffixArray(f.pool)
	return f, nil
}

// digests cuts a text into chunks.
func digests(text []byte) (Index, error) {
	chunks := NewChunker(bytes.NewReader(text))
	var index Index
	for {
		chunk, err := chunks.Next()
		if errors.Is(err, io.EOF) {
			return index, nil
		}
		if err != nil {
			return nil, err
		}
		index = append(index, Chunk{Digest: sha256.Sum256(chunk), Plain: uint32(len(chunk))})
	}
}

// find returns where in the old image the new one's bytes from at on stand, and how many at least.
func (f *finder) find(at int) (place, n int) {
	i := sort.Search(len(f.chunks), func(i int) bool { return f.chunks[i].end > at })
	if c := f.chunks[i]; c.old >= 0 {
		return c.old + at - c.start, c.end - at
	}
	start, n := f.search(f.next[at:])
	if n == 0 {
		return 0, 0
	}
	i = sort.Search(len(f.pieces), func(i int) bool { return f.pieces[i].end > start })
	p := f.pieces[i]
	return p.old + start - p.start, min(n, p.end-start)
}

// search finds the longest start of p in the pool, up to farthest bytes of it.
func (f *finder) search(p []byte) (place, length int) {
	p = p[:min(len(p), farthest)]
	low, high := 0, len(f.sa) // suffixes below low are less than p, those from high on are not
	lowLen, highLen := 0, 0   // of p, which every suffix between has in common with both ends
	for low < high {
		mid := int(uint(low+high) / 2)
		suffix := f.pool[f.sa[mid]:]
		n := min(lowLen, highLen)
		for n < len(p) && n < len(suffix) && p[n] == suffix[n] {
			n++
		}
		if n > length {
			place, length = int(f.sa[mid]), n
		}
		switch {
		case n == len(p):
			return place, length
		case n == len(suffix) || suffix[n] < p[n]:
			low, lowLen = mid+1, n
		default:
			high, highLen = mid, n
		}
	}
	return place, length
}
