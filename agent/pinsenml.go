package agent

import (
	"encoding/json"

	"github.com/fxamacker/cbor/v2"
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
// of an edge. A value that is none has its reason as a text instead. In CBOR the labels of the RFC are numbers (its table 4).
type pinSample struct {
	N      string   `json:"n" cbor:"0,keyasint"`
	U      string   `json:"u,omitempty" cbor:"1,keyasint,omitempty"`
	V      *float64 `json:"v,omitempty" cbor:"2,keyasint,omitempty"`
	VS     string   `json:"vs,omitempty" cbor:"3,keyasint,omitempty"` // the code of an error, or "invalid"
	T      float64  `json:"t" cbor:"6,keyasint"`                      // seconds since 1970
	Seq    uint64   `json:"seq,omitempty" cbor:"seq,omitempty"`
	Lost   uint64   `json:"lost,omitempty" cbor:"lost,omitempty"` // samples that are gone before this one
	Merged uint64   `json:"merged,omitempty" cbor:"merged,omitempty"`
}

// encodePins writes samples as the body of a message.
func encodePins(encoding string, list []pinSample) ([]byte, error) {
	if encoding == pinCBOR {
		return cbor.Marshal(list)
	}
	return json.Marshal(list)
}
