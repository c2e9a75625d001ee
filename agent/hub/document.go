package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
)

// docVersion is the version of every document's JSON.
const docVersion = 1

// errDocument is a stored document that this hub cannot read.
var errDocument = errors.New("document was written by a newer hub")

// decodeDoc reads a stored document. One of another version is an error that names it: guessing would lose data.
func decodeDoc(key state.Key, value []byte, into any) error {
	var v struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return fmt.Errorf("read document %s: %w", key, err)
	}
	if v.V != docVersion {
		return fmt.Errorf("read document %s, version %d: %w", key, v.V, errDocument)
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("read document %s: %w", key, err)
	}
	return nil
}

// object is a JSON object as stored, its numbers kept as written. The zero value is the empty object.
type object map[string]any

// UnmarshalJSON implements json.Unmarshaler.
func (o *object) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return err
	}
	*o = m
	return nil
}

// MarshalJSON implements json.Marshaler. No escapes that JSON does not ask for.
func (o object) MarshalJSON() ([]byte, error) {
	if o == nil {
		return []byte("{}"), nil
	}
	return marshal(map[string]any(o))
}

// marshal is json.Marshal without HTML escapes.
func marshal(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
