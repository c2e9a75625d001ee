package store

import (
	"errors"

	"go.etcd.io/bbolt"
)

// balance is what tells that something is missing of which no trace is left. The
// records that were ever stored, once for each lane, are those that are done,
// those that are here, and those that are gone: each block of a journal, each
// sealed segment and each commit of state.db says how many were stored before it,
// and each position how many of its lane were done. So whatever the newest thing
// is that the disk kept, it vouches for all that was stored before, wherever that
// lay.
type balance struct {
	stored uint64 // records ever
	gone   uint64 // of them, lost or never accounted for: neither done nor here
}

func (b balance) put(tx *bbolt.Tx) error {
	return errors.Join(putNumber(tx, keyStored, b.stored), putNumber(tx, keyGone, b.gone))
}

// evidence is what the files at hand say of the whole store.
type evidence struct {
	stored uint64 // records ever, at least
	seq    uint64 // the highest sequence, at least
	number uint64 // the highest number of a segment, at least
	loose  []loose
}

// loose is records from a block that was cut off.
type loose struct{ before, records uint64 }

// block takes a header into account.
func (e *evidence) block(h block) {
	e.stored, e.seq, e.number = max(e.stored, h.stored), max(e.seq, h.before), max(e.number, h.epoch)
}

// journal takes all headers of a journal into account, of its older lives too.
func (e *evidence) journal(b []byte, key uint32) {
	for at := 0; at >= 0; {
		h, ok := parseBlock(b[at:], key)
		if ok {
			e.block(h)
			if h.whole(b[at:]) { // else a newer life's block may lie in it
				at += h.next() - 1
			}
		}
		at = nextBlock(b, at+1)
	}
}

// replayed takes what a journal's newest life has into account.
func (e *evidence) replayed(r replayed) {
	e.stored, e.seq = max(e.stored, r.stored), max(e.seq, r.top)
	if r.loose > 0 {
		e.loose = append(e.loose, loose{before: r.looseAt, records: r.loose})
	}
}

// unvouched returns how many of the records at hand are newer than the newest
// thing that vouches for any: they are in nobody's balance.
func (e *evidence) unvouched() (n uint64) {
	for _, l := range e.loose {
		if l.before >= e.stored {
			n += l.records
		}
	}
	return n
}

// weigh compares what is here with what there was and returns how many records
// are missing. If known is false nobody can tell, and from here on what is here
// is what there was.
func (g *ledger) weigh(kept balance, e *evidence, known bool) (missing uint64) {
	defer g.locked()()
	here := uint64(0)
	for _, s := range g.sinks {
		for i := range s.lanes {
			here += s.lanes[i].stored
		}
	}
	e.stored = max(e.stored, kept.stored)
	switch have := here + kept.gone - min(e.unvouched(), here); {
	case !known:
		kept.gone = e.stored - min(e.stored, here)
	case e.stored > have:
		missing = e.stored - have
	}
	gone := kept.gone + missing
	g.balance = balance{stored: here + gone, gone: gone}
	return missing
}

func (g *ledger) storedSoFar() uint64 {
	defer g.locked()()
	return g.balance.stored
}
