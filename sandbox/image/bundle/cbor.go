package bundle

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// Limits of a manifest's CBOR, checked by the decoder before it allocates.
const (
	maxDepth = 8
	maxArray = 4096
	maxPairs = 64
)

// strict is the one CBOR dialect of the format: core deterministic out, the same and nothing else in.
type strict struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

// dialect builds the modes at first use: an agent's re-executed children never pay for them.
var dialect = sync.OnceValue(func() strict {
	eo := cbor.CoreDetEncOptions()
	eo.TagsMd = cbor.TagsForbidden
	enc, err := eo.EncMode()
	if err != nil {
		panic(err) // constant options
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   maxDepth,
		MaxArrayElements:  maxArray,
		MaxMapPairs:       maxPairs,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return strict{enc: enc, dec: dec}
})

// encode prints v deterministically. v holds only types of this package, so an error is a fault of the program.
func (s strict) encode(v any) []byte {
	b, err := s.enc.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("bundle: encode %T: %v", v, err))
	}
	return b
}

// decode reads b into v and refuses every encoding but the one encode makes.
func (s strict) decode(b []byte, v any) error {
	if err := s.dec.Unmarshal(b, v); err != nil {
		return err
	}
	again, err := s.enc.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("not in core deterministic encoding")
	}
	return nil
}
