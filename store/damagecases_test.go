package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// journal returns the journal that has what is not sealed, and where its blocks
// begin; the last is empty.
func (m image) journal(t *testing.T) (name string, blocks []int) {
	t.Helper()
	newest := uint64(0)
	for n, b := range m {
		if !strings.HasPrefix(n, "journal/") {
			continue
		}
		if epoch := epochOf(b, keyOf(n)); epoch > newest {
			newest, name = epoch, n
		}
	}
	for at := 0; ; {
		h, ok := parseBlock(m[name][at:], keyOf(name))
		if !ok || h.epoch != newest {
			break
		}
		blocks = append(blocks, at)
		at += h.next()
	}
	if len(blocks) < 20 {
		t.Fatalf("got %d blocks in %q, want a journal with records", len(blocks), name)
	}
	return name, blocks
}

// keyOf returns the key of the blocks in a journal.
func keyOf(name string) uint32 {
	_, key, _, _ := parseJournalName(name)
	return key
}

// leaf returns the n-th leaf page of records in a file.
func leaf(b []byte, n int) page {
	for at := 2 * pageSize; at < len(b); at += pageSize {
		p := page(b[at : at+pageSize])
		if p.id() == uint64(at/pageSize) && p.flags() == flagLeaf && p.count() > 5 {
			if n--; n < 0 {
				return p
			}
		}
	}
	panic("no such leaf")
}

func branch(b []byte) page {
	for at := 2 * pageSize; at < len(b); at += pageSize {
		if p := page(b[at : at+pageSize]); p.flags() == flagBranch && p.id() == uint64(at/pageSize) {
			return p
		}
	}
	panic("no branch")
}

// newestMeta returns the meta page of the last transaction.
func newestMeta(b []byte) []byte {
	m0, ok0 := parseMeta(b[headerSize : headerSize+metaSize])
	m1, ok1 := parseMeta(b[pageSize+headerSize : pageSize+headerSize+metaSize])
	if ok1 && (!ok0 || m1.txid > m0.txid) {
		return b[pageSize : 2*pageSize]
	}
	return b[:pageSize]
}

type damageCase struct {
	harm func(t *testing.T, m image)
	// lost is how many records, once for each sink, may be gone.
	lost int
	// again says that what was acknowledged may come once more.
	again bool
	// docs says that documents may be gone.
	docs bool
	// unseen says that without the catalog nobody can know of the loss.
	unseen bool
}

func damageCases() map[string]damageCase {
	rubbish := func(b []byte) []byte {
		rng := rand.New(rand.NewPCG(5, 5))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	segment := func(i int, change func([]byte) []byte) func(*testing.T, image) {
		return func(t *testing.T, m image) {
			t.Helper()
			names := m.segments()
			m.hurt(t, names[(i+len(names))%len(names)], change)
		}
	}
	state := func(change func([]byte) []byte) func(*testing.T, image) {
		return func(t *testing.T, m image) { t.Helper(); m.hurt(t, "state.db", change) }
	}
	journal := func(change func(b []byte, blocks []int)) func(*testing.T, image) {
		return func(t *testing.T, m image) {
			t.Helper()
			name, blocks := m.journal(t)
			m.hurt(t, name, func(b []byte) []byte { change(b, blocks); return b })
		}
	}
	inSegment := 2 * 420 // more than what a segment holds, in both sinks
	cases := map[string]damageCase{
		"nothing is lost without damage": {harm: func(*testing.T, image) {}},
		"a bit flips in a body": {
			harm: segment(0, func(b []byte) []byte {
				b[bytes.LastIndex(b, []byte("<message 00150>"))+5] ^= 4
				return b
			}), lost: 2,
		},
		"a bit flips in every copy of a body": {
			harm: segment(1, func(b []byte) []byte {
				i := len(b)/2 + bytes.Index(b[len(b)/2:], []byte("<message "))
				return bytes.ReplaceAll(b, bytes.Clone(b[i:i+15]), []byte("###############"))
			}), lost: 2,
		},
		"a leaf page is zeroed": {
			harm: segment(1, func(b []byte) []byte { clear(leaf(b, 3)); return b }), lost: 160,
		},
		"a branch page is zeroed": {
			harm: segment(1, func(b []byte) []byte { clear(branch(b)); return b }), lost: 0,
		},
		"a page is that of an older time": {
			harm: segment(0, func(b []byte) []byte {
				p := leaf(b, 4)
				id := bytes.Clone(p[:8])
				copy(p, leaf(b, 2))
				copy(p, id)
				return b
			}), lost: 320,
		},
		"a sector of rubbish": {
			harm: segment(-1, func(b []byte) []byte { rubbish(leaf(b, 0)[1024:1536]); return b }), lost: 160,
		},
		"the last meta page is rubbish": {
			harm: segment(-1, func(b []byte) []byte { rubbish(newestMeta(b)); return b }), lost: 0,
		},
		"both meta pages are rubbish": {
			harm: segment(1, func(b []byte) []byte { rubbish(b[:2*pageSize]); return b }), lost: 0,
		},
		"the tail is torn": {
			harm: segment(-1, func(b []byte) []byte { return b[:len(b)-3000] }), lost: 160,
		},
		"half a segment is gone": {
			harm: segment(1, func(b []byte) []byte { return b[:len(b)/2/pageSize*pageSize] }), lost: inSegment,
		},
		"a segment is empty": {
			harm: segment(1, func([]byte) []byte { return []byte{} }), lost: inSegment,
		},
		"a segment has a few bytes": {
			harm: segment(0, func(b []byte) []byte { return b[:3000] }), lost: inSegment,
		},
		"a segment is rubbish": {
			harm: segment(2, rubbish), lost: inSegment,
		},
		"every segment is rubbish": {
			harm: func(t *testing.T, m image) {
				t.Helper()
				for _, name := range m.segments() {
					m.hurt(t, name, rubbish)
				}
			}, lost: 2 * damageRecords,
		},
		"a segment is missing": {
			harm: func(t *testing.T, m image) { t.Helper(); delete(m, m.segments()[1]) }, lost: inSegment, unseen: true,
		},
		"a segment has another's place": {
			harm: func(t *testing.T, m image) { t.Helper(); m[m.segments()[0]] = m[m.segments()[1]] }, lost: inSegment,
		},
		"the names of lanes are gone": {
			harm: segment(1, func(b []byte) []byte {
				for at := 2 * pageSize; at < len(b); at += pageSize {
					p := page(b[at : at+pageSize])
					if p.flags() == flagLeaf && p.fits() && p.count() > 1 {
						for i := range p.count() {
							if _, key, val, ok := p.leaf(i); ok && len(key) == 4 {
								val[9] ^= 1
							}
						}
					}
				}
				return b
			}), lost: inSegment,
		},
		"a stranger's file lies about": {
			harm: func(_ *testing.T, m image) {
				m["seg/notes.db"] = []byte("hello")
				m["seg/0000000000000009.db.new"] = []byte("half")
				m["state.db.new"] = []byte("half")
			},
		},
		"the last commit in the journal is torn": {
			harm: journal(func(b []byte, blocks []int) { b[blocks[len(blocks)-2]+blockHeader+20] ^= 1 }), lost: 10,
		},
		"a bit flips in a commit in the middle of the journal": {
			harm: journal(func(b []byte, blocks []int) { b[blocks[len(blocks)/2]+blockHeader+40] ^= 1 }), lost: 10,
		},
		"the header of a commit is rubbish": {
			harm: journal(func(b []byte, blocks []int) { rubbish(b[blocks[3]:][:blockHeader]) }), lost: 10,
		},
		"the journal begins with rubbish": {
			harm: journal(func(b []byte, _ []int) { rubbish(b[:512]) }), lost: 2 * damageDraft, unseen: true,
		},
		"the journal is zero": {
			harm: journal(func(b []byte, _ []int) { clear(b) }), lost: 2 * damageDraft, unseen: true,
		},
		"the journal is rubbish": {
			harm: journal(func(b []byte, _ []int) { rubbish(b) }), lost: 2 * damageDraft, unseen: true,
		},
		"the journal is cut": {
			harm: func(t *testing.T, m image) {
				t.Helper()
				name, blocks := m.journal(t)
				m.hurt(t, name, func(b []byte) []byte { return b[:blocks[2]+100] })
			}, lost: 2 * damageDraft, unseen: true,
		},
		"the journal is missing": {
			harm: func(t *testing.T, m image) { t.Helper(); name, _ := m.journal(t); delete(m, name) }, lost: 2 * damageDraft, unseen: true,
		},
		"the end of the journal is rubbish": {harm: journal(func(b []byte, _ []int) { rubbish(b[len(b)-512:]) })},
		"a journal is empty": {
			harm: func(t *testing.T, m image) {
				t.Helper()
				name, _ := m.journal(t)
				m.hurt(t, name, func([]byte) []byte { return []byte{} })
			}, lost: 2 * damageDraft, unseen: true,
		},
		"there are two of the journal": {
			harm: func(t *testing.T, m image) {
				t.Helper()
				name, _ := m.journal(t)
				m[strings.Replace(name, "journal/", "journal/9", 1)] = m[name]
			}, lost: 0,
		},
		"state.db is missing":  {harm: func(_ *testing.T, m image) { delete(m, "state.db") }, again: true, docs: true},
		"state.db is empty":    {harm: state(func([]byte) []byte { return []byte{} }), again: true, docs: true},
		"state.db is rubbish":  {harm: state(rubbish), again: true, docs: true},
		"state.db is cut":      {harm: state(func(b []byte) []byte { return b[:3*pageSize+100] }), again: true, docs: true},
		"state.db is all zero": {harm: state(func(b []byte) []byte { clear(b); return b }), again: true, docs: true},
		"the last meta page of state.db is torn": {
			harm: state(func(b []byte) []byte { rubbish(newestMeta(b)); return b }), again: true, docs: true,
		},
		"the free list of state.db is rubbish": {
			harm: state(func(b []byte) []byte {
				m, _, err := readMeta(bytes.NewReader(b))
				if err != nil {
					panic(err)
				}
				rubbish(b[m.freelist*pageSize:][:pageSize])
				return b
			}), again: true, docs: true,
		},
		"the free list of state.db names pages in use": {
			harm: state(func(b []byte) []byte {
				m, _, err := readMeta(bytes.NewReader(b))
				if err != nil {
					panic(err)
				}
				list := b[m.freelist*pageSize:]
				list[headerSize], list[10], list[11] = byte(m.root), 1, 0
				return b
			}), again: true, docs: true,
		},
		"both meta pages of state.db are rubbish": {
			harm: state(func(b []byte) []byte { rubbish(b[:2*pageSize]); return b }), again: true, docs: true,
		},
		"state.db has a few bytes": {harm: state(func(b []byte) []byte { return b[:3000] }), again: true, docs: true},
		"every leaf of state.db is zeroed": {
			harm: state(func(b []byte) []byte {
				for at := 2 * pageSize; at < len(b); at += pageSize {
					if p := page(b[at:]); p.flags() == flagLeaf {
						clear(b[at : at+pageSize])
					}
				}
				return b
			}), again: true, docs: true,
		},
		"a page of state.db is that of an older time": {
			harm: state(func(b []byte) []byte { // the root goes back by a transaction
				m0, _ := parseMeta(b[headerSize:][:metaSize])
				m1, _ := parseMeta(b[pageSize+headerSize:][:metaSize])
				if m0.txid < m1.txid {
					m0, m1 = m1, m0
				}
				copy(b[m0.root*pageSize+8:][:pageSize-8], b[m1.root*pageSize+8:])
				return b
			}), again: true, docs: true,
		},
		"documents rot": {
			harm: state(func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("<document>"), []byte("<DOCUMENT>")) }),
			docs: true,
		},
		"cursors rot": {
			harm: state(func(b []byte) []byte {
				return bytes.ReplaceAll(b, append([]byte{2}, 'x'), append([]byte{3}, 'x'))
			}), again: true,
		},
		"everything is rubbish": {
			harm: func(t *testing.T, m image) {
				t.Helper()
				for name := range m {
					m.hurt(t, name, rubbish)
				}
			}, lost: 2 * damageRecords, again: true, docs: true,
		},
	}
	for seed := range uint64(12) {
		cases[fmt.Sprint("one bit flips anywhere, ", seed)] = damageCase{
			harm: func(t *testing.T, m image) {
				t.Helper()
				rng := rand.New(rand.NewPCG(seed, 8))
				names := slices.Sorted(maps.Keys(m))
				m.hurt(t, names[rng.IntN(len(names))], func(b []byte) []byte {
					b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
					return b
				})
			}, lost: 320, again: true, docs: true,
		}
	}
	return cases
}
