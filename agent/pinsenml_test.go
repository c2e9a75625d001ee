package agent

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// senml is a record as RFC 8428, table 4, has it in CBOR: integers where it gives a label one, texts for labels that it does not know.
type senml struct {
	N      string   `cbor:"0,keyasint" json:"n"`
	U      string   `cbor:"1,keyasint,omitempty" json:"u"`
	V      *float64 `cbor:"2,keyasint,omitempty" json:"v"`
	VS     *string  `cbor:"3,keyasint,omitempty" json:"vs"`
	T      float64  `cbor:"6,keyasint" json:"t"`
	Seq    uint64   `cbor:"seq,omitempty" json:"seq"`
	Lost   uint64   `cbor:"lost,omitempty" json:"lost"`
	Merged uint64   `cbor:"merged,omitempty" json:"merged"`
}

func TestSamplesSayTheSameInJSONAndInCBOR(t *testing.T) {
	t.Parallel()
	low, high := -3.25, 1e9
	list := []pinSample{
		{N: "boiler", U: "Cel", V: &low, T: 1764139215.125},
		{N: "meter", VS: "timeout", T: 1764139216},
		{N: strings.Repeat("n", 32), U: strings.Repeat("u", 300), V: &high, T: 0},
		{N: "door", V: new(float64), T: 1764139217.001, Seq: 1 << 40, Lost: 65536, Merged: 23},
	}
	for range 100 { // more than one byte of length
		list = append(list, pinSample{N: "x", V: &high, T: 1})
	}
	mode, err := cbor.DecOptions{ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	decode := map[string]func([]byte, any) error{pinJSON: json.Unmarshal, pinSenML: json.Unmarshal, pinCBOR: mode.Unmarshal}
	for _, encoding := range pinEncodings {
		raw, err := encodePins(encoding, list)
		if err != nil {
			t.Fatal(err)
		}
		var got []senml
		if err := decode[encoding](raw, &got); err != nil || len(got) != len(list) {
			t.Fatalf("%s: got %d records, %v, want %d", encoding, len(got), err, len(list))
		}
		for i, g := range got {
			s := list[i]
			if g.N != s.N || g.U != s.U || g.T != s.T || g.Seq != s.Seq || g.Lost != s.Lost || g.Merged != s.Merged {
				t.Errorf("%s: got %+v, want %+v", encoding, g, s)
			}
			if (g.V != nil) != (s.V != nil) || g.V != nil && *g.V != *s.V {
				t.Errorf("%s: got another value in %+v than in %+v", encoding, g, s)
			}
			if (g.V != nil) == (g.VS != nil) { // RFC 8428, section 4.2: exactly one value
				t.Errorf("%s: %+v has not exactly one value", encoding, g)
			}
		}
	}
}

func TestASampleInCBORIsTheseBytes(t *testing.T) {
	t.Parallel()
	one := 1.0
	raw, err := encodePins(pinCBOR, []pinSample{{N: "x", U: "V", V: &one, T: 0, Lost: 2}})
	want := "81" + "a5" + "00" + "6178" + "01" + "6156" + "02" + "fb3ff0000000000000" + "06" + "fb0000000000000000" + "646c6f7374" + "02"
	if got := hex.EncodeToString(raw); err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}
