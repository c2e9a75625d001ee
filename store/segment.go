package store

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/fxamacker/cbor/v2"
)

// A segment is a draft until it is sealed: then it is a bbolt file with one
// bucket. Its keys, in their order:
//
//	0 0             what the file is: format, its number, the lowest sequence in it
//	0 0 lane        which sink and priority the number of a lane stands for here
//	lane sequence   a record, see [value]
//
// so it can be read without state.db, and page by page if its tree is damaged.
// From format 2 on a key has the lower half of the sequence; in format 1, which
// release 0.1.0 wrote and which salvage writes, all of it.
var (
	bucketRecords = []byte("r") // format 1
	bucketSealed  = []byte("s") // formats 2 and 3
)

// segmentMetas is how many meta pages of a segment must be whole. Going back by
// one transaction would lose what was acknowledged, and salvage finds it all.
const segmentMetas = 2

// maxLane is the highest number of a lane in one segment.
const maxLane = 1<<16 - 1

// segment is a row of records: a draft, and then a file. Its number does not
// change, its place does; the rest is guarded by ledger.mu.
type segment struct {
	number uint64
	place  atomic.Pointer[place]

	closed     bool  // no more records come
	live       int   // parts of lanes that are not drained
	size       int64 // bytes of its file, 0 for a draft
	generation int   // counts files
	left       bool  // it is not written anew
}

// place is where the records of a segment are.
type place struct {
	draft *draft // nil: in the file
	path  string
}

func (s *segment) where() *place { return s.place.Load() }

// newSegment returns a segment that has a file.
func newSegment(number uint64, path string) *segment {
	s := &segment{number: number, closed: true}
	s.place.Store(&place{path: path})
	return s
}

// laneName is what the number of a lane stands for.
type laneName struct {
	sink     string
	priority uint8
}

// summary is what a sealed segment holds, kept in the catalog.
type summary struct {
	_     struct{} `cbor:",toarray"`
	Lanes []laneSummary
	Size  int64 // of the file in bytes, 0 = not known: a start does not look at each file
}

// oldSummary is a summary of formats 1 and 2.
type oldSummary struct {
	_     struct{} `cbor:",toarray"`
	Lanes []laneSummary
}

// laneSummary is one lane's part of a segment.
type laneSummary struct {
	_        struct{} `cbor:",toarray"`
	ID       uint16
	Sink     string
	Priority uint8
	Count    int64
	Bytes    int64 // of bodies
	First    uint64
	Last     uint64
	Oldest   int64 // wall clock of the first record, ms
	Deadline int64 // powered-on ms when the last one expires; 0: some never does
	Timed    bool  // some record has a time to live
}

// add counts one record, which must be the newest.
func (s *laneSummary) add(seq uint64, size int, stored, deadline int64) {
	if s.Count == 0 {
		s.First, s.Oldest, s.Deadline = seq, stored, deadline
	}
	s.Count++
	s.Bytes += int64(size)
	s.Last = seq
	s.Timed = s.Timed || deadline > 0
	if deadline == 0 || s.Deadline == 0 {
		s.Deadline = 0
	} else {
		s.Deadline = max(s.Deadline, deadline)
	}
}

// last returns the highest sequence.
func (s summary) last() (seq uint64) {
	for _, l := range s.Lanes {
		seq = max(seq, l.Last)
	}
	return seq
}

func (s summary) encode() ([]byte, error) { return cbor.Marshal(s) }

func parseSummary(b []byte) (summary, bool) {
	var s summary
	if cbor.Unmarshal(b, &s) != nil {
		var old oldSummary
		if cbor.Unmarshal(b, &old) != nil {
			return summary{}, false
		}
		s = summary{Lanes: old.Lanes}
	}
	if s.Size < 0 {
		return summary{}, false
	}
	for _, l := range s.Lanes {
		if l.Priority > Lowest || l.Count < 1 || l.Bytes < 0 || l.First > l.Last || l.ID == 0 {
			return summary{}, false
		}
	}
	return s, true
}

// recordKey appends the key of a record to dst.
func recordKey(dst []byte, lane uint16, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(dst, lane), seq)
}

// parseRecordKey reads a record's key; ok is false for the other keys.
func parseRecordKey(k []byte) (lane uint16, seq uint64, ok bool) {
	if len(k) != 10 || k[0] == 0 && k[1] == 0 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(k), binary.BigEndian.Uint64(k[2:]), true
}

func headerKey() []byte { return []byte{0, 0} }

// header says which segment a file is.
type header struct {
	format uint32
	number uint64
	base   uint64 // no sequence in it is lower
	stored uint64 // as in a block, when it was sealed; 0 before format 3
}

func (h header) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, h.format)
	b = binary.BigEndian.AppendUint64(b, h.number)
	b = binary.BigEndian.AppendUint64(b, h.base)
	if h.format == formatVersion {
		b = binary.BigEndian.AppendUint64(b, h.stored)
	}
	return sealed(headerKey(), b)
}

// parseHeader reads a header. Its error is ErrNewer or a *damage.
func parseHeader(b []byte) (header, error) {
	content, ok := opened(headerKey(), b)
	if !ok || len(content) < 4 {
		return header{}, damaged(0, "the segment's header cannot be read")
	}
	if v := binary.BigEndian.Uint32(content); v > formatVersion {
		return header{}, fmt.Errorf("%w: a segment has format %d and this program reads up to %d", ErrNewer, v, formatVersion)
	}
	h := header{format: binary.BigEndian.Uint32(content)}
	switch {
	case h.format < formatVersion && len(content) == 20:
	case h.format == formatVersion && len(content) == 28:
		h.stored = binary.BigEndian.Uint64(content[20:])
	default:
		return header{}, damaged(0, "the segment's header has %d bytes", len(content))
	}
	h.number, h.base = binary.BigEndian.Uint64(content[4:]), binary.BigEndian.Uint64(content[12:])
	return h, nil
}

func laneKey(id uint16) []byte { return binary.BigEndian.AppendUint16([]byte{0, 0}, id) }

// parseLaneKey reads the key of a lane's name; ok is false for the other keys.
func parseLaneKey(k []byte) (id uint16, ok bool) {
	if len(k) != 4 || k[0] != 0 || k[1] != 0 {
		return 0, false
	}
	id = binary.BigEndian.Uint16(k[2:])
	return id, id != 0
}

// encode writes a lane's name; the segment's number in it tells names apart
// that an older life of a page left behind.
func (n laneName) encode(number uint64, id uint16) []byte {
	b := binary.BigEndian.AppendUint64(nil, number)
	return sealed(laneKey(id), append(append(b, n.priority), n.sink...))
}

func parseLaneName(number uint64, id uint16, b []byte) (laneName, bool) {
	content, ok := opened(laneKey(id), b)
	if !ok || len(content) < 9 || binary.BigEndian.Uint64(content) != number || content[8] > Lowest {
		return laneName{}, false
	}
	return laneName{sink: string(content[9:]), priority: content[8]}, true
}

func (n laneName) seed() uint32 { return laneSeed(n.sink, n.priority) }

// reader reads the records of a segment. It is good inside one view.
type reader struct {
	content
	number uint64
	seeds  map[uint16]uint32 // of lanes that references point to
}

// scan calls fn for the records of a lane with sequences in [from, to], in
// order, until fn returns false. A record that is damaged, or whose body is,
// comes with ok = false. val is only good during the call.
func (r *reader) scan(lane uint16, seed uint32, from, to uint64, fn func(seq uint64, val value, ok bool) bool) {
	r.each(lane, from, to, func(seq uint64, v []byte) bool {
		val, ok := parseValue(v, seed, seq)
		if ok && val.kind == kindReference {
			val.body, ok = r.body(val.lane, seq)
		}
		return fn(seq, val, ok)
	})
}

// body follows a reference.
func (r *reader) body(lane uint16, seq uint64) ([]byte, bool) {
	seed, known := r.seeds[lane]
	if !known {
		name, ok := r.lane(lane)
		if !ok {
			return nil, false
		}
		if r.seeds == nil {
			r.seeds = map[uint16]uint32{}
		}
		seed = name.seed()
		r.seeds[lane] = seed
	}
	val, ok := parseValue(r.get(lane, seq), seed, seq)
	return val.body, ok && val.kind == kindBody
}

// summarise reads a whole segment and says what of it is above each lane's
// cursor. clock is the newest powered-on time in it.
func (r *reader) summarise(cursor func(laneName) uint64) (sum summary, clock int64, err error) {
	err = r.lanes(func(id uint16) error {
		name, ok := r.lane(id)
		if !ok {
			return damaged(0, "the name of lane %d cannot be read", id)
		}
		lane := laneSummary{ID: id, Sink: name.sink, Priority: name.priority}
		r.scan(id, name.seed(), cursor(name)+1, ^uint64(0), func(seq uint64, val value, _ bool) bool {
			// A damaged record counts as one: whoever reads the lane meets it.
			lane.add(seq, len(val.body), val.stored, val.deadline())
			clock = max(clock, val.clock)
			return true
		})
		if lane.Count > 0 {
			sum.Lanes = append(sum.Lanes, lane)
		}
		return nil
	})
	if err != nil {
		return summary{}, 0, err
	}
	return sum, clock, nil
}
