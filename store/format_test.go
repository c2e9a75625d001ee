package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// formatPage is the tables of FORMAT.md: heading → first words of a field →
// where it is.
type formatPage map[string]map[string]fieldAt

type fieldAt struct{ offset, size int }

func readFormatPage(t *testing.T) formatPage {
	t.Helper()
	raw, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	p, heading := formatPage{}, ""
	for line := range strings.Lines(string(raw)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "### "); ok {
			heading, _, _ = strings.Cut(name, ",")
			p[heading] = map[string]fieldAt{}
		}
		cells := strings.Split(line, "|")
		if len(cells) != 5 || heading == "" {
			continue
		}
		offset, err1 := strconv.Atoi(strings.TrimSpace(cells[1]))
		size, err2 := strconv.Atoi(strings.TrimSpace(cells[2]))
		if err1 != nil || err2 != nil {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSpace(cells[3]), ",")
		name, _, _ = strings.Cut(name, ":")
		p[heading][name] = fieldAt{offset, size}
	}
	return p
}

// get reads a number of a structure at the start of b.
func (p formatPage) get(t *testing.T, heading, name string, order binary.ByteOrder, b []byte) uint64 {
	t.Helper()
	f, ok := p[heading][name]
	if !ok {
		t.Fatalf("FORMAT.md has no %q under %q, only %v", name, heading, p[heading])
	}
	field := b[f.offset : f.offset+f.size]
	switch f.size {
	case 2:
		return uint64(order.Uint16(field))
	case 4:
		return uint64(order.Uint32(field))
	default:
		return order.Uint64(field)
	}
}

func (p formatPage) offset(t *testing.T, heading, name string) int {
	t.Helper()
	f, ok := p[heading][name]
	if !ok {
		t.Fatalf("FORMAT.md has no %q under %q", name, heading)
	}
	return f.offset
}

// pageRecord is one record as the page says how to find it.
type pageRecord struct {
	sink string
	seq  uint64
	body string
	ttl  uint64
}

// pageValue takes a value apart.
func pageValue(t *testing.T, sink string, priority byte, seq uint64, b []byte) (r pageRecord, lane uint16) {
	t.Helper()
	sum := binary.LittleEndian.Uint32(b[len(b)-4:])
	over := append(append([]byte(sink), priority), binary.BigEndian.AppendUint64(nil, seq)...)
	if got := digest(append(over, b[:len(b)-4]...)); got != sum {
		t.Errorf("record %d of %s: checksum %08x, want %08x", seq, sink, got, sum)
	}
	kind, rest := b[0], b[1:len(b)-4]
	_, n := binary.Uvarint(rest)
	ttl, m := binary.Uvarint(rest[n:])
	rest = rest[n+m:]
	if ttl > 0 {
		_, n := binary.Uvarint(rest)
		rest = rest[n:]
	}
	r = pageRecord{sink: sink, seq: seq, ttl: ttl}
	if kind == 2 {
		return r, binary.BigEndian.Uint16(rest)
	}
	r.body = string(rest)
	return r, 0
}

// pageName takes a name apart.
func pageName(t *testing.T, id uint16, b []byte) (number uint64, sink string, priority byte) {
	t.Helper()
	key := binary.BigEndian.AppendUint16([]byte{0, 0}, id)
	if got, want := digest(append(key, b[:len(b)-4]...)), binary.LittleEndian.Uint32(b[len(b)-4:]); got != want {
		t.Errorf("name of lane %d: checksum %08x, want %08x", id, got, want)
	}
	return binary.BigEndian.Uint64(b), string(b[9 : len(b)-4]), b[8]
}

// The golden store, read with the numbers of FORMAT.md and no code of the store:
// every record is where the page says.
func TestFilesAreAsFormatMDSays(t *testing.T) {
	t.Parallel()
	p := readFormatPage(t)
	m := unpack(t, golden)
	bodies := map[string]int{}
	count := func(all []pageRecord) {
		for _, r := range all {
			bodies[r.sink+" "+r.body]++
			if (r.ttl > 0) != (r.sink == "modules/filter/inputs/in") {
				t.Errorf("%+v: got a time to live of %d", r, r.ttl)
			}
		}
	}
	sealed := 0
	for name, b := range m {
		switch {
		case strings.HasPrefix(name, "journal/"):
			count(p.journal(t, name, b, m))
		case strings.HasPrefix(name, "seg/"):
			sealed++
			count(p.segment(t, name, b))
		}
	}
	for i := range 60 {
		body := fmt.Sprintf("golden %d.%02d", i/20, i%20)
		if got := bodies["modules/filter/inputs/in "+body]; got != 1 {
			t.Errorf("%s is there %d times, want once", body, got)
		}
	}
	if sealed != 2 {
		t.Errorf("got %d sealed segments, want 2", sealed)
	}
}

func (p formatPage) journal(t *testing.T, file string, b []byte, m image) (all []pageRecord) {
	t.Helper()
	le := binary.LittleEndian
	var n, key uint32
	if _, err := fmt.Sscanf(file, "journal/%d-%08x.journal", &n, &key); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	epoch := p.get(t, "Block", "epoch", le, b)
	if epoch == 0 {
		return nil // no records were in it yet
	}
	for name := range m {
		if strings.HasPrefix(name, fmt.Sprintf("seg/%016d", epoch)) {
			return nil // was sealed
		}
	}
	names, bodies, stored := map[uint64]string{}, map[uint64]string{}, uint64(80)
	noted := 0
	for commit := uint64(1); p.get(t, "Block", "epoch", le, b) == epoch && bytes.HasPrefix(b, []byte("SPJ\x03")); commit++ {
		head, body := p.offset(t, "Block", "checksum of key and bytes before it"), p.offset(t, "Block", "payload")
		payload := b[body : body+int(p.get(t, "Block", "length of the payload", le, b))]
		if p.get(t, "Block", "commit", le, b) != commit ||
			p.get(t, "Block", "checksum of key and bytes before it", le, b) != uint64(crc32.Update(key, castagnoli, b[:head])) ||
			p.get(t, "Block", "checksum of the payload", le, b) != uint64(digest(payload)) {
			t.Fatalf("block %d is not as the page says", commit)
		}
		before := p.get(t, "Block", "before", le, b)
		if got := p.get(t, "Block", "stored", le, b); got != stored {
			t.Errorf("block %d: %d records were stored before it, want %d", commit, got, stored)
		}
		for rest := payload; len(rest) > 0; {
			var n [3]uint64
			for i := range n {
				v, size := binary.Uvarint(rest)
				n[i], rest = v, rest[size:]
			}
			val := rest[:n[2]]
			rest = rest[n[2]:]
			if n[0] == 0 && val[0] == 2 {
				noted++
				continue
			}
			if n[0] == 0 {
				number, sink, priority := pageName(t, uint16(n[1]), val[1:])
				if names[n[1]] = string(priority) + sink; number != epoch {
					t.Errorf("a name of segment %d in %d", number, epoch)
				}
				continue
			}
			stored++
			seq := before + n[1]
			r, lane := pageValue(t, names[n[0]][1:], names[n[0]][0], seq, val)
			if lane > 0 {
				r.body = bodies[seq]
			}
			bodies[seq] = r.body
			all = append(all, r)
		}
		b = b[body+len(payload):]
	}
	if noted == 0 {
		t.Error("no block tells of a position: the golden store is to have one")
	}
	return all
}

func (p formatPage) segment(t *testing.T, name string, b []byte) (all []pageRecord) {
	t.Helper()
	ne := binary.NativeEndian
	var number, sum uint64
	if _, err := fmt.Sscanf(name, "seg/%016d-%08x.db", &number, &sum); err != nil || uint64(digest(b)) != sum {
		t.Fatalf("%s: digest %08x, %v", name, digest(b), err)
	}
	meta := b[p.offset(t, "Page", "elements"):]
	size := int(p.get(t, "Meta", "page size", ne, meta))
	check := fnv.New64a()
	check.Write(meta[:p.offset(t, "Meta", "FNV-1a of the bytes before it")])
	if p.get(t, "Meta", "FNV-1a of the bytes before it", ne, meta) != check.Sum64() ||
		p.get(t, "Meta", "high", ne, meta) != uint64(len(b)/size) {
		t.Fatalf("%s: the meta page is not as the page says", name)
	}
	elements := func(id uint64, fn func(key, val []byte)) {
		pg := b[int(id)*size:]
		if p.get(t, "Page", "id", ne, pg) != id {
			t.Fatalf("page %d calls itself another", id)
		}
		at := pg[p.offset(t, "Page", "elements"):]
		for range p.get(t, "Page", "count of elements", ne, pg) {
			pos := p.get(t, "Leaf element", "position of the key", ne, at)
			k := p.get(t, "Leaf element", "key size", ne, at)
			v := p.get(t, "Leaf element", "value size", ne, at)
			fn(at[pos:pos+k], at[pos+k:pos+k+v])
			at = at[p.offset(t, "Leaf element", "next element"):]
		}
	}
	names, bodies, base := map[uint16]string{}, map[uint64]string{}, uint64(0)
	var refs []pageRecord
	elements(p.get(t, "Meta", "root", ne, meta), func(key, val []byte) {
		if string(key) != "s" {
			t.Fatalf("a bucket %q", key)
		}
		elements(ne.Uint64(val), func(key, val []byte) { // golden segments are small: the root is a leaf
			switch len(key) {
			case 2:
				if binary.BigEndian.Uint32(val) != 3 || binary.BigEndian.Uint64(val[4:]) != number {
					t.Errorf("%s: header %x", name, val)
				}
				base = binary.BigEndian.Uint64(val[12:])
			case 4:
				id := binary.BigEndian.Uint16(key[2:])
				_, sink, priority := pageName(t, id, val)
				names[id] = string(priority) + sink
			default:
				lane, seq := binary.BigEndian.Uint16(key), base&^(1<<32-1)|uint64(binary.BigEndian.Uint32(key[2:]))
				r, ref := pageValue(t, names[lane][1:], names[lane][0], seq, val)
				if ref > 0 {
					refs = append(refs, r)
					return
				}
				bodies[seq] = r.body
				all = append(all, r)
			}
		})
	})
	for _, r := range refs {
		r.body = bodies[r.seq]
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b pageRecord) int { return int(a.seq) - int(b.seq) })
	return all
}
