package message

import (
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Errors of [Decode]. A record that wraps ErrVersion was written by a newer agent and is whole: keep it. One that
// wraps ErrCorrupt will never decode.
var (
	ErrVersion = errors.New("message of a newer version")
	ErrCorrupt = errors.New("not a stored message")
)

// wire is the durable form as the CBOR library sees it.
type wire struct {
	Version  uint64   `cbor:"0,keyasint"`
	Device   string   `cbor:"1,keyasint"`
	Module   string   `cbor:"2,keyasint,omitempty"`
	Output   string   `cbor:"3,keyasint,omitempty"`
	Bag      []string `cbor:"4,keyasint,omitempty"`
	Body     []byte   `cbor:"5,keyasint,omitempty"`
	Accepted *int64   `cbor:"6,keyasint,omitempty"`
	ID       string   `cbor:"7,keyasint,omitempty"`
	Boot     string   `cbor:"8,keyasint,omitempty"`
	Uptime   uint64   `cbor:"9,keyasint,omitempty"` // microseconds
}

// maxUptime bounds how long a device is up, in microseconds: a hundred years.
const maxUptime = 100 * 365 * 86400 * 1e6

// strict refuses everything that the durable form does not have.
var strict = mustStrict()

func mustStrict() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		UTF8:             cbor.UTF8RejectInvalid,
		MaxNestedLevels:  4,
		MaxArrayElements: 2 * iothub.MaxProperties,
		MaxMapPairs:      64,
	}.DecMode()
	if err != nil {
		panic("message: cbor options: " + err.Error()) // constants, so a test finds it
	}
	return mode
}

// Decode reads what [Message.Append] wrote, of this version or an older one, and shares no memory with data. Sizes
// are checked before anything is allocated; members under unknown keys are ignored.
func Decode(data []byte) (Message, error) {
	if len(data) > maxEncoded {
		return Message{}, fmt.Errorf("%w: %d bytes, at most %d", ErrCorrupt, len(data), maxEncoded)
	}
	var w wire
	err := strict.Unmarshal(data, &w)
	if err != nil { // a newer version may give other types to the members: only its version need be readable
		var head struct {
			Version uint64 `cbor:"0,keyasint"`
		}
		if strict.Unmarshal(data, &head) != nil || head.Version <= Version {
			return Message{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		w.Version = head.Version
	}
	if w.Version > Version {
		return Message{}, fmt.Errorf("%w: version %d, this agent reads up to %d", ErrVersion, w.Version, Version)
	}
	if w.Version == 0 || len(w.Bag)%2 != 0 {
		return Message{}, fmt.Errorf("%w: version %d, %d property texts", ErrCorrupt, w.Version, len(w.Bag))
	}
	if w.Uptime > maxUptime {
		return Message{}, fmt.Errorf("%w: up for %d microseconds", ErrCorrupt, w.Uptime)
	}
	m := Message{Output: w.Output, Body: w.Body, ID: w.ID, Boot: w.Boot, Uptime: time.Duration(w.Uptime) * time.Microsecond}
	if w.Device != "" {
		src, err := iothub.NewID(w.Device, w.Module)
		if err != nil {
			return Message{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		m.Source = src
	} else if w.Module != "" {
		return Message{}, fmt.Errorf("%w: module without device", ErrCorrupt)
	}
	if len(m.Body) == 0 {
		m.Body = nil
	}
	if len(w.Bag) > 0 {
		m.Bag = make(iothub.Bag, 0, len(w.Bag)/2)
		for i := 0; i < len(w.Bag); i += 2 {
			m.Bag = append(m.Bag, iothub.Property{Key: w.Bag[i], Value: w.Bag[i+1]})
		}
	}
	if w.Accepted != nil {
		m.Accepted = time.UnixMicro(*w.Accepted).UTC()
	}
	return m, nil
}
