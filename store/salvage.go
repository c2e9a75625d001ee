package store

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// salvage reads a damaged segment page by page, whatever its tree looks like,
// and writes every record that still carries a right checksum into a fresh
// segment of format 1 at out. Pages that the tree no longer uses are read as well: an old
// copy of a record is the record. known is what the catalog says, if it does:
// records that it does not know of are another file's. What salvage returns is
// what is above each lane's cursor; if that is nothing, no file is left at out.
func salvage(path, out string, number uint64, known summary, cursor func(laneName) uint64) (sum summary, size int64, err error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return summary{}, 0, nil
	case err != nil:
		return summary{}, 0, fmt.Errorf("open damaged segment: %w", err)
	}
	defer f.Close() // only read
	names := map[uint16]laneName{}
	low, high := ^uint64(0), uint64(0)
	for _, ls := range known.Lanes {
		names[ls.ID] = laneName{sink: ls.Sink, priority: ls.Priority}
		low, high = min(low, ls.First), max(high, ls.Last)
	}
	base, err := identify(f, number, names)
	if len(known.Lanes) == 0 {
		low, high = base, ^uint64(0)
	} else if base == 0 {
		base = low
	}
	if err != nil || len(names) == 0 {
		return summary{}, 0, err
	}
	if err := remove(out); err != nil {
		return summary{}, 0, fmt.Errorf("clear the way: %w", err)
	}
	defer catch(&err)
	db, err := bbolt.Open(out, fileMode, &bbolt.Options{
		PageSize: pageSize, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoStatistics: true,
		NoSync: true, // it means nothing before it is flushed and renamed
	})
	if err != nil {
		return summary{}, 0, classify(fmt.Errorf("make segment: %w", err))
	}
	r := rescue{db: db, seeds: map[uint16]uint32{}, base: base, low: low, high: high}
	err = r.begin(header{format: 1, number: number, base: base}, names)
	if err == nil {
		err = errors.Join(leaves(f, r.page), r.commit())
	}
	if err == nil {
		err = read(db, number, func(r *reader) error {
			sum, _, err = r.summarise(cursor)
			return err
		})
	}
	if err == nil {
		err = db.Sync()
	}
	info, serr := os.Stat(out)
	err = errors.Join(err, serr, db.Close())
	if err != nil || len(sum.Lanes) == 0 {
		return summary{}, 0, classify(errors.Join(err, remove(out)))
	}
	return sum, info.Size(), nil
}

// identify finds the lowest sequence and the lanes' names in any leaf.
func identify(f *os.File, number uint64, names map[uint16]laneName) (base uint64, err error) {
	err = leaves(f, func(key, val []byte) error {
		if string(key) == string(headerKey()) {
			h, err := parseHeader(val)
			if errors.Is(err, ErrNewer) {
				return err
			}
			if err == nil && h.number == number {
				base = h.base
			}
		}
		if id, ok := parseLaneKey(key); ok {
			if name, ok := parseLaneName(number, id, val); ok {
				names[id] = name
			}
		}
		return nil
	})
	return base, err
}

// maxOverflow bounds the pages that one leaf may claim: four bodies and change.
const maxOverflow = 4*MaxBody/pageSize + 64

// leaves calls fn for every element of every page that looks like a leaf and of
// which the bounds hold.
func leaves(f *os.File, fn func(key, val []byte) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	pages := uint64(info.Size()) / pageSize
	var buf page
	for id := uint64(2); id < pages; id++ {
		p, err := readPage(f, id, min(pages, id+maxOverflow), buf)
		if isDamage(err) {
			continue
		}
		if err != nil {
			return err
		}
		buf = p
		if p.flags() != flagLeaf || !p.fits() {
			continue
		}
		for i := range p.count() {
			flags, key, val, ok := p.leaf(i)
			if !ok || flags != 0 {
				continue
			}
			if err := fn(key, val); err != nil {
				return err
			}
		}
	}
	return nil
}

// rescue writes what a damaged segment still had.
type rescue struct {
	db        *bbolt.DB
	tx        *bbolt.Tx
	seeds     map[uint16]uint32
	base      uint64
	low, high uint64 // sequences that can be in it
	bytes     int
}

func (r *rescue) begin(h header, names map[uint16]laneName) (err error) {
	if r.tx, err = r.db.Begin(true); err != nil {
		return err
	}
	b, err := r.tx.CreateBucket(bucketRecords)
	if err != nil {
		return err
	}
	if err := b.Put(headerKey(), h.encode()); err != nil {
		return err
	}
	for id, name := range names {
		r.seeds[id] = name.seed()
		if err := b.Put(laneKey(id), name.encode(h.number, id)); err != nil {
			return err
		}
	}
	return nil
}

// page takes one element over if it is a record.
func (r *rescue) page(key, val []byte) error {
	lane, seq, ok := parseKey(key, r.base)
	seed, known := r.seeds[lane]
	if !ok || !known || seq < r.low || seq > r.high {
		return nil
	}
	if _, ok := parseValue(val, seed, seq); !ok {
		return nil
	}
	if err := r.tx.Bucket(bucketRecords).Put(recordKey(nil, lane, seq), append([]byte{}, val...)); err != nil {
		return err
	}
	if r.bytes += len(val); r.bytes < groupBytes {
		return nil
	}
	if err := r.commit(); err != nil {
		return err
	}
	var err error
	r.tx, err = r.db.Begin(true)
	return err
}

func (r *rescue) commit() error {
	r.bytes = 0
	if r.tx == nil {
		return nil
	}
	tx := r.tx
	r.tx = nil
	return tx.Commit()
}
