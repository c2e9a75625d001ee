package bundle

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"
)

const (
	alike    = 16       // bytes in a row that need no search for something better
	worth    = 8        // bytes that another place must match more than the present one
	farthest = 64 << 10 // bytes compared for one match
)

// WriteDelta writes the delta that makes the image next of the image old. It needs both in memory, and beside them about fifteen
// times what is in old but not in next, so it is for build hosts. The same images give the same delta on every machine. index, when
// not nil, is next's in its bundle: a device that gets its stored lengths with the delta need not fetch it.
func WriteDelta(w io.Writer, h DeltaHeader, old, next []byte, index Index) error {
	h.Stored = index != nil
	found, err := newFinder(old, next)
	if err != nil {
		return fmt.Errorf("write delta: %w", err)
	}
	if _, err := w.Write(h.Append(nil)); err != nil {
		return fmt.Errorf("write delta: %w", err)
	}
	enc, err := zstd.NewWriter(w,
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(deltaWindow),
		zstd.WithEncoderCRC(false), // the image's digest decides
	)
	if err != nil {
		return fmt.Errorf("zstd encoder: %w", err)
	}
	d := differ{finder: found, out: enc}
	if err := d.run(); err != nil {
		return fmt.Errorf("write delta: %w", err)
	}
	if h.Stored {
		list := binary.AppendUvarint(nil, uint64(len(index)))
		for _, c := range index {
			list = binary.AppendUvarint(list, uint64(c.Stored))
		}
		if _, err := enc.Write(list); err != nil {
			return fmt.Errorf("write delta: %w", err)
		}
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("write delta: %w", err)
	}
	return nil
}

// differ walks the new image and keeps one alignment with the old: new byte i stands beside old byte i+shift. It changes to another
// when that matches clearly more; what lies between two alignments goes to the better one, or is given in full.
type differ struct {
	*finder
	out io.Writer
	buf []byte

	from    int // start of the stretch that is not written yet
	oldFrom int // the old byte beside it
}

func (d *differ) run() error {
	for at := 0; at < len(d.next); {
		if n := d.same(at, at+d.oldFrom-d.from, alike); n >= alike {
			at += d.same(at, at+d.oldFrom-d.from, math.MaxInt)
			continue
		}
		place, n := d.find(at)
		if n > worth && n > d.matching(at, at+d.oldFrom-d.from, n)+worth {
			if err := d.turn(at, place); err != nil {
				return err
			}
			at += n
			continue
		}
		at++
	}
	return d.turn(len(d.next), len(d.old))
}

// turn writes the stretch up to the new byte at, and goes on beside the old byte place.
func (d *differ) turn(at, place int) error {
	forward := d.forward(at)
	back := 0
	if at < len(d.next) {
		back = d.backward(at, place)
	}
	if over := d.from + forward - (at - back); over > 0 { // both claim these bytes: split where most match
		best, bestAt, score := 0, 0, 0
		for i := range over {
			if d.beside(d.from+forward-over+i, d.oldFrom+forward-over+i) {
				score++
			}
			if d.beside(at-back+i, place-back+i) {
				score--
			}
			if score > best {
				best, bestAt = score, i+1
			}
		}
		forward += bestAt - over
		back -= bestAt
	}
	from, oldFrom := at-back, place-back
	if from == d.from && at < len(d.next) { // a record is never empty: one byte goes with the move
		from, oldFrom = from+1, oldFrom+1
	}
	extra := d.next[d.from+forward : from]
	if forward+len(extra) > 0 {
		seek := 0
		if at < len(d.next) {
			seek = oldFrom - (d.oldFrom + forward)
		}
		if err := d.record(forward, extra, seek); err != nil {
			return err
		}
	}
	d.from, d.oldFrom = from, oldFrom
	return nil
}

func (d *differ) record(diff int, extra []byte, seek int) error {
	d.buf = binary.AppendUvarint(d.buf[:0], uint64(diff))
	d.buf = binary.AppendUvarint(d.buf, uint64(len(extra)))
	d.buf = binary.AppendVarint(d.buf, int64(seek))
	for i := range diff {
		d.buf = append(d.buf, d.next[d.from+i]-d.old[d.oldFrom+i])
	}
	d.buf = append(d.buf, extra...)
	_, err := d.out.Write(d.buf)
	return err
}

// forward is how much of the stretch up to at is worth a difference to the present alignment: matches count for, the rest against.
func (d *differ) forward(at int) int {
	best, length, score := 0, 0, 0
	for i := 0; d.from+i < at && d.oldFrom+i < len(d.old); i++ {
		score += d.vote(d.from+i, d.oldFrom+i)
		if score > best {
			best, length = score, i+1
		}
	}
	return length
}

// backward is the same from at towards the start for the alignment that begins there.
func (d *differ) backward(at, place int) int {
	best, length, score := 0, 0, 0
	for i := 1; at-i >= d.from && place-i >= 0; i++ {
		score += d.vote(at-i, place-i)
		if score > best {
			best, length = score, i
		}
	}
	return length
}

func (d *differ) vote(at, place int) int {
	if d.next[at] == d.old[place] {
		return 1
	}
	return -1
}

func (d *differ) beside(at, place int) bool {
	return place >= 0 && place < len(d.old) && d.next[at] == d.old[place]
}

// same counts equal bytes in a row, up to limit.
func (d *differ) same(at, place, limit int) int {
	n := 0
	for n < limit && at+n < len(d.next) && d.beside(at+n, place+n) {
		n++
	}
	return n
}

// matching counts the equal bytes among n.
func (d *differ) matching(at, place, n int) int {
	count := 0
	for i := range n {
		if d.beside(at+i, place+i) {
			count++
		}
	}
	return count
}
