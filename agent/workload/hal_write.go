package workload

import (
	"bytes"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// halWrite is the body of a write.
type halWrite struct {
	value float64
	given bool // value was there
	pulse time.Duration
	fence uint64
}

// readHalWrite reads the body of a write. It is what modules send most, so that the keys it has are read without reflection, which takes
// a fifth of a request's time; anything else, mistakes among it, is the library's to judge.
func readHalWrite(raw []byte) (halWrite, error) {
	if w, ok := plainHalWrite(raw); ok {
		return w, nil
	}
	var doc halWriteDoc
	err := json.Unmarshal(raw, &doc)
	return doc.write(), err
}

// halWriteDoc is a write as the library reads it.
type halWriteDoc struct {
	Value *float64     `json:"value"`
	For   hal.Duration `json:"for"`
	Fence uint64       `json:"fence"`
}

func (d halWriteDoc) write() halWrite {
	w := halWrite{pulse: time.Duration(d.For), fence: d.Fence}
	if d.Value != nil {
		w.value, w.given = *d.Value, true
	}
	return w
}

// plainHalWrite reads an object of numbers and texts without escapes under the known keys, each once; false is all else.
func plainHalWrite(raw []byte) (w halWrite, ok bool) {
	rest, open := bytes.CutPrefix(bytes.TrimSpace(raw), []byte("{"))
	rest, shut := bytes.CutSuffix(rest, []byte("}"))
	if !open || !shut {
		return w, false
	}
	seen := 0
	for more := true; more; {
		var pair []byte
		pair, rest, more = bytes.Cut(rest, []byte(","))
		key, value, found := bytes.Cut(pair, []byte(":"))
		value = bytes.TrimSpace(value)
		if !found || len(value) == 0 {
			return w, false
		}
		var err error
		bit := 0
		switch string(bytes.TrimSpace(key)) {
		case `"value"`:
			bit, w.given = 1, true
			if !isJSONNumber(value) {
				return w, false
			}
			w.value, err = strconv.ParseFloat(string(value), 64)
		case `"for"`:
			bit = 2
			n := len(value)
			if n < 2 || value[0] != '"' || value[n-1] != '"' || bytes.ContainsAny(value[1:n-1], `"\`) {
				return w, false
			}
			w.pulse, err = time.ParseDuration(string(value[1 : n-1]))
		case `"fence"`:
			bit = 4
			if !isJSONNumber(value) {
				return w, false
			}
			w.fence, err = strconv.ParseUint(string(value), 10, 64)
		default:
			return w, false
		}
		if err != nil || w.pulse < 0 || seen&bit != 0 {
			return w, false
		}
		seen |= bit
	}
	return w, true
}

// isJSONNumber says whether a text is a number as JSON has it, without an exponent.
func isJSONNumber(b []byte) bool {
	b = bytes.TrimPrefix(b, []byte("-"))
	whole, fraction, dotted := bytes.Cut(b, []byte("."))
	return areDigits(whole) && (whole[0] != '0' || len(whole) == 1) && (!dotted || areDigits(fraction))
}

func areDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// fences is the text of a module's newest fence: a lease has many writes, and each is answered with it.
type fences struct {
	mu     sync.Mutex
	newest uint64
	header []string // nobody changes it
}

func (f *fences) text(fence uint64) []string {
	f.mu.Lock()
	if f.newest != fence || f.header == nil {
		f.newest, f.header = fence, []string{strconv.FormatUint(fence, 10)}
	}
	header := f.header
	f.mu.Unlock()
	return header
}
