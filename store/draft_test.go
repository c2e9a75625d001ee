package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// scribble makes a draft of n random records in three lanes, in a journal of its
// own, and returns it.
func scribble(tb testing.TB, rng *rand.Rand, n, size int) *draft {
	tb.Helper()
	f, err := realMedium{}.open(filepath.Join(tb.TempDir(), "1.journal"), os.O_RDWR|os.O_CREATE)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	d := newDraft(7, 1<<32+10, 1<<32+5, &journal{file: f, size: 4 << 20})
	g := newLedger()
	ids := map[*lane]uint16{}
	b := &batch{}
	for i := range n {
		entries := []Entry{{Sink: "x", Priority: uint8(rng.IntN(2))}}
		if rng.IntN(3) == 0 {
			entries = append(entries, Entry{Sink: "y", TTL: 1000})
		}
		r := pending{seq: d.base + uint64(2*i), from: len(b.arena), first: len(b.entries), entries: len(entries), clock: 3, stored: 1 << 40}
		b.entries = g.resolve(b.entries, entries)
		v := value{kind: kindBody, stored: r.stored, clock: r.clock, body: bytes.Repeat([]byte{byte(i)}, rng.IntN(size))}
		b.arena = v.append(b.arena, b.entries[r.first].lane.seed, r.seq)
		r.to = len(b.arena)
		b.records = append(b.records, r)
		if i == n-1 || rng.IntN(4) == 0 {
			if _, err := d.append(group{batch: b, records: b.records}, ids, 0); err != nil {
				tb.Fatal(err)
			}
			b.reset()
		}
	}
	return d
}

// bound returns the file of a draft with all its records.
func bound(tb testing.TB, b *binder, d *draft) []byte {
	tb.Helper()
	file, err := b.bind(d, header{format: formatVersion, number: d.number, base: d.base}, d.at, func(uint16, uint64) bool { return true })
	if err != nil {
		tb.Fatal(err)
	}
	return file
}

// printContent lists what a content has.
func printContent(t *testing.T, c content) string {
	t.Helper()
	var b bytes.Buffer
	r := &reader{content: c, number: 7}
	if err := c.lanes(func(id uint16) error {
		name, ok := c.lane(id)
		fmt.Fprintln(&b, id, name, ok)
		r.scan(id, name.seed(), 0, ^uint64(0), func(seq uint64, v value, ok bool) bool {
			fmt.Fprintln(&b, seq, v.stored, v.ttl, v.clock, len(v.body), digest(v.body), ok)
			return true
		})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What we write without bbolt, bbolt and verify have nothing to say about, and it
// is the same.
func TestASealedSegmentIsABboltFileWithTheSameContent(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	var b binder
	for _, shape := range []struct{ records, size int }{{0, 1}, {1, 10}, {3, 200}, {2000, 300}, {60, 40_000}, {40, 17_000}, {5000, 2}} {
		d := scribble(t, rng, shape.records, shape.size)
		path := filepath.Join(t.TempDir(), "bound.db")
		file := bound(t, &b, d)
		if err := os.WriteFile(path, file, fileMode); err != nil {
			t.Fatal(err)
		}
		if err := verify(path, segmentMetas); err != nil {
			t.Errorf("%+v: verify: %v", shape, err)
		}
		db, err := bbolt.Open(path, fileMode, &bbolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.View(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				t.Errorf("%+v: bbolt: %v", shape, err)
			}
			c, err := openContent(tx, 7)
			if err != nil {
				return err
			}
			if got, want := printContent(t, c), printContent(t, d); got != want {
				t.Errorf("%+v: got\n%.300s\nwant\n%.300s", shape, got, want)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%+v: %v", shape, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Of a backlog a file takes a fifth more than the bodies at most.
func TestASealedSegmentIsSmall(t *testing.T) {
	t.Parallel()
	d := newDraft(1, 1, 0, &journal{size: 2 << 20})
	d.drawn = []drawn{{name: laneName{sink: "upstream/meter"}, ok: true}}
	n := 0
	for ; d.at < 2<<20-300; n++ {
		b := value{kind: kindBody, stored: 1.8e12, body: make([]byte, 200)}.append(nil, 1, uint64(n))
		copy(d.buf[d.at:], b)
		d.publish([]placed{{id: 1, spot: spot{seq: uint64(n + 1), from: uint32(d.at), to: uint32(d.at + len(b))}}})
		d.at += len(b)
	}
	var b binder
	if got := float64(len(bound(t, &b, d))) / float64(n*200); got > 1.195 {
		t.Errorf("got %.3f bytes for each of a body, want 1.195 at most", got)
	}
}

func TestAJournalIsReplayed(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	d := scribble(t, rng, 500, 300)
	var blocks []int
	for at := 0; at < d.at; {
		h, _ := parseBlock(d.buf[at:], 0)
		blocks = append(blocks, at)
		at += h.next()
	}
	last := blocks[len(blocks)-1]
	tests := map[string]struct {
		harm  func(b []byte)
		holes int
		torn  bool
		all   bool
		front bool // is missing: how much, nobody can tell from the journal
	}{
		"whole": {harm: func([]byte) {}, all: true},
		"stale blocks behind it": {all: true, harm: func(b []byte) {
			old := block{epoch: 6, commit: uint32(len(blocks)) + 1, before: d.last}
			old.seal(b[d.at:d.at+blockHeader+20], 0)
		}},
		"blocks of the future behind it": {holes: 1, harm: func(b []byte) {
			block{epoch: 7, commit: uint32(len(blocks)) + 3, before: d.last + 9}.seal(b[d.at:d.at+blockHeader], 0)
		}, all: true},
		"the last is torn":              {torn: true, harm: func(b []byte) { clear(b[last+blockHeader+10 : last+blockHeader+30]) }},
		"the last has no header":        {harm: func(b []byte) { clear(b[last : last+10]) }},
		"one in the middle is torn":     {holes: 1, harm: func(b []byte) { b[blocks[20]+blockHeader+12] ^= 8 }},
		"one in the middle has no head": {holes: 1, harm: func(b []byte) { b[blocks[20]+3] ^= 8 }},
		"the first is gone":             {holes: 1, front: true, harm: func(b []byte) { clear(b[:blocks[1]]) }},
		"two are gone":                  {holes: 2, harm: func(b []byte) { b[blocks[9]] = 0; b[blocks[11]] = 0 }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := &draft{number: 7, buf: bytes.Clone(d.buf)}
			tt.harm(got.buf)
			r := got.replay()
			if r.epoch != 7 || r.holes != tt.holes || r.torn != tt.torn || (r.lost > 0) != (tt.holes > 0 && !tt.front) {
				t.Errorf("got %+v, want %d holes, torn %t", r, tt.holes, tt.torn)
			}
			if same := printContent(t, got) == printContent(t, d); same != tt.all {
				t.Errorf("the same records: got %t, want %t", same, tt.all)
			}
		})
	}
}

// A producer sends again what it was not promised, from the first on: of a commit
// that was cut off nothing is kept behind what is missing, or its later records
// would come before the earlier ones.
func TestACommitThatWasCutOffHasNoGaps(t *testing.T) {
	t.Parallel()
	var d *draft
	last, items := 0, 0
	for seed := uint64(0); items < 6; seed++ {
		d = scribble(t, rand.New(rand.NewPCG(seed, 1)), 30, 300)
		for at := 0; at < d.at; {
			h, _ := parseBlock(d.buf[at:], 0)
			last, items = at, 0
			for next, payload := 0, h.payload(d.buf[at:]); next < len(payload); items++ {
				_, end, ok := parseItem(payload, next)
				if !ok {
					t.Fatal("a block that was just written is not whole")
				}
				next = end
			}
			at += h.next()
		}
	}
	all := sequences(d)
	for at := last + blockHeader; at < d.at; at++ {
		got := &draft{number: 7, buf: bytes.Clone(d.buf[:d.at+200])}
		got.buf[at] ^= 0x20
		got.replay()
		if here := sequences(got); !slices.Equal(here, all[:len(here)]) {
			t.Fatalf("byte %d of the last block is wrong: got the records %d, want them without a gap: %d", at-last, here, all)
		}
	}
}

// sequences are those of a draft's records, each once.
func sequences(d *draft) (all []uint64) {
	for _, l := range d.drawn {
		for _, s := range l.spots {
			all = append(all, s.seq)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Whatever a journal's bytes are: no panic, and what comes out carries its
// checksums.
func FuzzReplay(f *testing.F) {
	d := scribble(f, rand.New(rand.NewPCG(7, 8)), 40, 100)
	whole := bytes.Clone(d.buf[:d.at+200])
	f.Add(whole, uint32(0), uint32(0), false)
	f.Add(whole[:100], uint32(40), uint32(7), true)
	f.Add([]byte("SPJ\x03"), uint32(0), uint32(0), false)
	f.Fuzz(func(t *testing.T, b []byte, at, mask uint32, mend bool) {
		b = bytes.Clone(b)
		if len(b) > 0 {
			b[int(at)%len(b)] ^= byte(mask)
		}
		if mend && len(b) >= blockHeader { // so that the items are reached
			if h, ok := parseBlock(whole, 0); ok && len(b) > blockHeader {
				h.seal(b, 0)
			}
		}
		got := &draft{buf: b}
		r := got.replay()
		n := 0
		for i := range got.drawn {
			last := uint64(0)
			got.each(uint16(i+1), 0, ^uint64(0), func(seq uint64, val []byte) bool {
				v, ok := parseValue(val, got.drawn[i].name.seed(), seq)
				if !ok || seq <= last || v.kind == kindReference && got.get(v.lane, seq) == nil {
					t.Errorf("record %d of lane %d: ok %t behind %d", seq, i+1, ok, last)
				}
				last = seq
				n++
				return true
			})
		}
		if n != r.records {
			t.Errorf("got %d records, and %d are said", n, r.records)
		}
		var out binder
		bound(t, &out, got)
	})
}
