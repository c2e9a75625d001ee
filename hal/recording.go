package hal

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Bounds of a recording.
const (
	maxRecording = 16 << 20  // bytes of the file
	maxRecords   = 1 << 16   // in it
	maxRecordRow = 128 << 10 // bytes of one line
)

// Recording is what went over a board's pins and buses in a stretch of time: a file of JSON, one document a line. The first says what
// it is, {"recording":1,"time":"…","names":["imu"]}; each further one is a [Record].
type Recording struct {
	Version int       `json:"recording"` // 1
	Time    time.Time `json:"time"`      // when it began
	Names   []string  `json:"names"`     // of the resources
	Records []Record  `json:"-"`
}

// Record is one operation on a resource, or one event of it.
type Record struct {
	T    int64  `json:"t"` // microseconds since the recording began, at the end of the operation
	Name string `json:"name"`
	Op   string `json:"op"` // read and write of a value, transfer of bytes, edge, frame

	V     float64  `json:"v,omitzero"` // of a read, as the hardware gave it, and of a write
	W     Hex      `json:"w,omitempty"`
	R     Hex      `json:"r,omitempty"`    // what was read; of a frame its bytes
	N     int      `json:"n,omitzero"`     // how much was to be read: bytes, or of Modbus registers or coils
	Until int      `json:"until,omitzero"` // serial
	Fn    Function `json:"fn,omitzero"`    // Modbus
	Addr  uint16   `json:"addr,omitzero"`  // Modbus
	ID    uint32   `json:"id,omitzero"`    // CAN
	More  bool     `json:"more,omitzero"`  // the next record of this name is of the same transfer

	Seq    uint64 `json:"seq,omitzero"`
	Edge   Edge   `json:"edge,omitzero"`
	Merged uint64 `json:"merged,omitzero"`
	Lost   uint64 `json:"lost,omitzero"` // records that are missing before this one
	Err    Code   `json:"err,omitzero"`  // the operation failed so; of a transfer the last record has it
}

// The words of Record.Op.
const (
	opRead     = "read"
	opWrite    = "write"
	opTransfer = "transfer"
	opEdge     = "edge"
	opFrame    = "frame"
)

// Hex are bytes as hexadecimal text.
type Hex []byte

// MarshalText gives hexadecimal.
func (b Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

// UnmarshalText reads hexadecimal.
func (b *Hex) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// ReadRecording reads a recording of at most 16 MiB and 65,536 records; the error names the line. A last line without its end was cut
// off and is left out.
func ReadRecording(r io.Reader) (rec Recording, err error) {
	lines := bufio.NewReaderSize(io.LimitReader(r, maxRecording+1), maxRecordRow)
	for n, size := 1, 0; ; n++ {
		raw, err := lines.ReadSlice('\n')
		if size += len(raw); size > maxRecording || n > maxRecords+2 {
			return rec, fmt.Errorf("recording: more than %d bytes or %d records; record for a shorter time", maxRecording, maxRecords)
		}
		if n > 1 && errors.Is(err, io.EOF) {
			return rec, nil
		}
		if err == nil && n == 1 {
			if err = json.Unmarshal(raw, &rec); err == nil && rec.Version != 1 {
				err = fmt.Errorf("version %d; this program reads 1, which `sandpiper hal record` writes", rec.Version)
			}
		} else if err == nil {
			var one Record
			if err = json.Unmarshal(raw, &one); err == nil && !one.possible() {
				err = fmt.Errorf("no record: %.80q", raw)
			}
			rec.Records = append(rec.Records, one)
		}
		if err != nil {
			return rec, fmt.Errorf("recording: line %d: %w", n, err)
		}
	}
}

// possible says whether a record is one that could have been written.
func (r *Record) possible() bool {
	event := r.Op == opEdge || r.Op == opFrame
	return isName(r.Name) && (event || r.Op == opRead || r.Op == opWrite || r.Op == opTransfer) &&
		(r.Op != opEdge || r.Err != "" || r.Edge == Rising || r.Edge == Falling) && (r.Op == opTransfer || !r.More) &&
		r.T >= 0 && r.T < 1<<45 && r.N >= 0 && r.N <= MaxTransfer && len(r.W) <= MaxTransfer && len(r.R) <= MaxTransfer &&
		(r.Err == "" || r.Err.Status() != 500)
}

// asked are operations of one call as a recording has them, without what they gave.
func asked(name string, ops []Op) []Record {
	list := make([]Record, len(ops))
	for i := range ops {
		op := &ops[i]
		list[i] = Record{Name: name, Op: opTransfer, W: op.Write, N: op.Read, Fn: op.Fn, Addr: op.Addr, ID: op.ID, Until: max(op.Until, 0), More: i < len(ops)-1}
		if op.Fn != "" {
			list[i].N = int(op.N)
		}
	}
	return list
}
