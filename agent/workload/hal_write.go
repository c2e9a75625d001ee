package workload

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// halWrite is the body of a write.
type halWrite struct {
	Value *float64     `json:"value"`
	For   hal.Duration `json:"for"`
	Fence uint64       `json:"fence"`
}

// readHalWrite reads the body of a write. It is what modules send most, so that the keys it has are read without reflection, which takes
// a fifth of a request's time; anything else, mistakes among it, is the library's to judge.
func readHalWrite(raw []byte, req *halWrite) error {
	if req.plain(raw) {
		return nil
	}
	*req = halWrite{}
	return json.Unmarshal(raw, req)
}

// plain reads an object of numbers and texts without escapes under the known keys, each once; false is all else.
func (w *halWrite) plain(raw []byte) bool {
	rest, open := bytes.CutPrefix(bytes.TrimSpace(raw), []byte("{"))
	rest, shut := bytes.CutSuffix(rest, []byte("}"))
	if !open || !shut {
		return false
	}
	seen := 0
	for more := true; more; {
		var pair []byte
		pair, rest, more = bytes.Cut(rest, []byte(","))
		key, value, found := bytes.Cut(pair, []byte(":"))
		value = bytes.TrimSpace(value)
		if !found || len(value) == 0 {
			return false
		}
		bit := 0
		switch string(bytes.TrimSpace(key)) {
		case `"value"`:
			bit = 1
			if !isJSONNumber(value) {
				return false
			}
			v, err := strconv.ParseFloat(string(value), 64)
			if err != nil {
				return false
			}
			w.Value = &v
		case `"for"`:
			bit = 2
			n := len(value)
			if n < 2 || value[0] != '"' || value[n-1] != '"' || bytes.ContainsAny(value[1:n-1], `"\`) {
				return false
			}
			d, err := time.ParseDuration(string(value[1 : n-1]))
			if err != nil || d < 0 {
				return false
			}
			w.For = hal.Duration(d)
		case `"fence"`:
			bit = 4
			n, err := strconv.ParseUint(string(value), 10, 64)
			if err != nil || !isJSONNumber(value) {
				return false
			}
			w.Fence = n
		default:
			return false
		}
		if seen&bit != 0 {
			return false
		}
		seen |= bit
	}
	return true
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
