package workload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"

	"github.com/fxamacker/cbor/v2"
)

// The two forms of a document. Both ways keep whole numbers of 64 bits exact.

// toCBOR writes a JSON document as CBOR, in its deterministic encoding.
func toCBOR(doc []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	value, err := numbers(value)
	if err != nil {
		return nil, err
	}
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, err
	}
	return mode.Marshal(value)
}

// numbers replaces every json.Number by the smallest Go number that holds it.
func numbers(value any) (any, error) {
	switch v := value.(type) {
	case json.Number:
		return number(v)
	case []any:
		for i := range v {
			item, err := numbers(v[i])
			if err != nil {
				return nil, err
			}
			v[i] = item
		}
	case map[string]any:
		for key := range v {
			item, err := numbers(v[key])
			if err != nil {
				return nil, err
			}
			v[key] = item
		}
	}
	return value, nil
}

func number(n json.Number) (any, error) {
	if whole, err := strconv.ParseInt(n.String(), 10, 64); err == nil && n != "-0" {
		return whole, nil
	}
	if whole, err := strconv.ParseUint(n.String(), 10, 64); err == nil {
		return whole, nil
	}
	fraction, err := n.Float64()
	if err != nil {
		return nil, fmt.Errorf("number %.32s does not fit 64 bits", n)
	}
	return fraction, nil
}

// toJSON writes a CBOR document as JSON. What JSON has not (byte strings, tags, undefined, infinities) is an error.
func toJSON(doc []byte) ([]byte, error) {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthAllowed,
		TagsMd:           cbor.TagsForbidden,
		UTF8:             cbor.UTF8RejectInvalid,
		MaxNestedLevels:  32,
		MaxArrayElements: 1 << 16,
		MaxMapPairs:      1 << 16,
		DefaultMapType:   reflect.TypeFor[map[string]any](),
	}.DecMode()
	if err != nil {
		return nil, err
	}
	var value any
	dec := mode.NewDecoder(bytes.NewReader(doc))
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	if dec.NumBytesRead() != len(doc) {
		return nil, errors.New("more than one document")
	}
	if err := onlyJSON(value); err != nil {
		return nil, err
	}
	return json.Marshal(value)
}

func onlyJSON(value any) error {
	switch v := value.(type) {
	case nil, bool, string, int64, uint64:
		return nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return errors.New("a number that is not finite")
		}
		return nil
	case []any:
		for _, item := range v {
			if err := onlyJSON(item); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for _, item := range v {
			if err := onlyJSON(item); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("a value of a kind that JSON has not (%T)", value)
}

// feed writes one document of a stream after another.
type feed struct {
	w    io.Writer
	cbor bool
}

func (f feed) write(doc []byte) error {
	if f.cbor {
		raw, err := toCBOR(doc)
		if err != nil {
			return err
		}
		_, err = f.w.Write(raw)
		return err
	}
	_, err := f.w.Write(append(doc[:len(doc):len(doc)], '\n'))
	return err
}
