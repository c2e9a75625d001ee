package agent

import (
	"encoding/binary"
	"encoding/json"
	"math"
)

// The forms of a message of samples; its content type is "application/" and the form. The first is the second under the name that lets the
// hub's routes look into a body.
const (
	pinJSON  = "json"
	pinSenML = "senml+json"
	pinCBOR  = "senml+cbor"
)

var pinEncodings = []string{pinJSON, pinSenML, pinCBOR}

// pinSample is one value in a message, a record of SenML (RFC 8428): name, unit, value and time, and under labels of our own what is known
// of an edge. A value that is none has its reason as a text instead.
type pinSample struct {
	N      string   `json:"n"`
	U      string   `json:"u,omitempty"`
	V      *float64 `json:"v,omitempty"`
	VS     string   `json:"vs,omitempty"` // the code of an error, or "invalid"
	T      float64  `json:"t"`            // seconds since 1970
	Seq    uint64   `json:"seq,omitempty"`
	Lost   uint64   `json:"lost,omitempty"` // samples that are gone before this one
	Merged uint64   `json:"merged,omitempty"`
}

// encodePins writes samples as the body of a message.
func encodePins(encoding string, list []pinSample) ([]byte, error) {
	if encoding != pinCBOR {
		return json.Marshal(list)
	}
	b := cborItem(nil, 4, uint64(len(list)))
	for i := range list {
		b = list[i].appendCBOR(b)
	}
	return b, nil
}

// appendCBOR writes a record with the numbers that labels have in CBOR (RFC 8428, table 4): n 0, u 1, v 2, vs 3, t 6.
func (s *pinSample) appendCBOR(b []byte) []byte {
	at := len(b)
	b = append(b, 5<<5) // a map; how long it is comes last
	text := func(label byte, v string) {
		if v != "" {
			b = append(cborItem(append(b, label), 3, uint64(len(v))), v...)
			b[at]++
		}
	}
	number := func(label byte, v float64) {
		b = binary.BigEndian.AppendUint64(append(b, label, 7<<5|27), math.Float64bits(v))
		b[at]++
	}
	text(0, s.N)
	text(1, s.U)
	if s.V != nil {
		number(2, *s.V)
	}
	text(3, s.VS)
	number(6, s.T)
	for _, own := range [...]struct {
		label string
		v     uint64
	}{{"seq", s.Seq}, {"lost", s.Lost}, {"merged", s.Merged}} {
		if own.v > 0 {
			b = cborItem(append(append(b, 3<<5|byte(len(own.label))), own.label...), 0, own.v)
			b[at]++
		}
	}
	return b
}

// cborItem begins an item of a major type (RFC 8949, section 3.1).
func cborItem(b []byte, major byte, n uint64) []byte {
	switch major <<= 5; {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}
