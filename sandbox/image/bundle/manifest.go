package bundle

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// Kind is what a bundle's payload is.
type Kind uint8

// The kinds.
const (
	KindModule Kind = 1
	KindAgent  Kind = 2
	KindSystem Kind = 3
)

// String prints the kind's word.
func (k Kind) String() string {
	switch k {
	case KindModule:
		return "module"
	case KindAgent:
		return "agent"
	case KindSystem:
		return "system"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// MarshalText is String, for JSON.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Format is the file system of an image.
type Format uint8

// The formats.
const (
	FormatEROFS    Format = 1
	FormatSquashFS Format = 2
)

// String prints the name the kernel knows the file system by.
func (f Format) String() string {
	switch f {
	case FormatEROFS:
		return "erofs"
	case FormatSquashFS:
		return "squashfs"
	}
	return fmt.Sprintf("format %d", uint8(f))
}

// MarshalText is String, for JSON.
func (f Format) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// Manifest is the signed description of a bundle. The package doc has its CDDL. The zero value is not valid.
type Manifest struct {
	Schema       uint64       `cbor:"1,keyasint" json:"schema"`
	Name         string       `cbor:"2,keyasint" json:"name"`
	Version      string       `cbor:"3,keyasint" json:"version"`
	Sequence     uint64       `cbor:"4,keyasint" json:"sequence"` // anti-rollback number
	Kind         Kind         `cbor:"5,keyasint" json:"kind"`
	Compatible   []string     `cbor:"6,keyasint" json:"compatible"` // device classes, or "*"
	Platform     Platform     `cbor:"7,keyasint" json:"platform"`
	Image        ImageInfo    `cbor:"8,keyasint" json:"image"`
	Index        IndexInfo    `cbor:"9,keyasint" json:"index"`
	Runtime      *Runtime     `cbor:"10,keyasint,omitempty" json:"runtime,omitempty"`
	Dependencies []Dependency `cbor:"11,keyasint,omitempty" json:"dependencies,omitempty"`
	NotBefore    uint64       `cbor:"12,keyasint,omitempty" json:"not_before,omitempty"` // Unix seconds
	Expires      uint64       `cbor:"13,keyasint,omitempty" json:"expires,omitempty"`    // Unix seconds
	Build        *Build       `cbor:"14,keyasint,omitempty" json:"build,omitempty"`
	MinAgent     uint64       `cbor:"15,keyasint,omitempty" json:"min_agent,omitempty"`
	Health       *Health      `cbor:"16,keyasint,omitempty" json:"health,omitempty"`
	Floor        uint64       `cbor:"17,keyasint,omitempty" json:"floor,omitempty"`

	// Extensions holds the ignorable fields 1000 to 1999 as they were encoded.
	Extensions map[uint64]cbor.RawMessage `cbor:"-" json:"-"`
}

// Platform is the machine a bundle is for.
type Platform struct {
	OS      string `cbor:"1,keyasint" json:"os"`                             // "linux"
	Arch    string `cbor:"2,keyasint" json:"arch"`                           // Go's name, or "any"
	Variant string `cbor:"3,keyasint,omitempty" json:"variant,omitempty"`    // v6, v7, v8 for arm
	Kernel  string `cbor:"4,keyasint,omitempty" json:"min_kernel,omitempty"` // "5.10"
}

// AnyArch is the arch of a bundle that holds no machine code.
const AnyArch = "any"

// ImageInfo names the image: its file system, size and digests.
type ImageInfo struct {
	Format   Format     `cbor:"1,keyasint" json:"format"`
	Size     uint64     `cbor:"2,keyasint" json:"size"` // bytes
	Digest   Digest     `cbor:"3,keyasint" json:"digest"`
	Verity   Digest     `cbor:"4,keyasint" json:"verity"` // fs-verity: sha256, 4 KiB blocks, no salt
	DMVerity *[2]Digest `cbor:"5,keyasint,omitempty" json:"dm_verity,omitempty"`
}

// IndexInfo names the index and the payload.
type IndexInfo struct {
	Size    uint64    `cbor:"1,keyasint" json:"size"` // bytes
	Digest  Digest    `cbor:"2,keyasint" json:"digest"`
	Payload uint64    `cbor:"3,keyasint" json:"payload"` // bytes
	Chunker [4]uint32 `cbor:"4,keyasint" json:"chunker"`
}

// Dependency names a module that must be there. Max 0 = no upper bound.
type Dependency struct {
	Name string `cbor:"1,keyasint" json:"name"`
	Min  uint64 `cbor:"2,keyasint" json:"min"`
	Max  uint64 `cbor:"3,keyasint,omitempty" json:"max,omitempty"`
}

// Build says what the image was made from. Nothing on a device depends on it.
type Build struct {
	Source string   `cbor:"1,keyasint,omitempty" json:"source,omitempty"`
	Epoch  uint64   `cbor:"2,keyasint,omitempty" json:"epoch,omitempty"` // SOURCE_DATE_EPOCH, Unix seconds
	Tools  []string `cbor:"3,keyasint,omitempty" json:"tools,omitempty"`
}

// Health is the publisher's wish for probation after an update.
type Health struct {
	Probation   uint64 `cbor:"1,keyasint,omitempty" json:"probation,omitempty"` // seconds
	Probe       string `cbor:"2,keyasint,omitempty" json:"probe,omitempty"`
	MaxRestarts uint64 `cbor:"3,keyasint,omitempty" json:"max_restarts,omitempty"`
}

const (
	schema         = 1
	firstExtra     = 1000
	lastExtra      = 1999
	lastKnownKey   = 17
	encodingAdvice = "rebuild the bundle with sandpiper-bundle"
)

// Encode validates the manifest and prints its one encoding.
func (m Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m.append()
}

func (m Manifest) append() ([]byte, error) {
	d := dialect()
	known := d.encode(m)
	if len(m.Extensions) == 0 {
		return known, nil
	}
	var fields map[uint64]cbor.RawMessage
	if err := d.dec.Unmarshal(known, &fields); err != nil {
		return nil, err
	}
	maps.Copy(fields, m.Extensions)
	return d.enc.Marshal(fields)
}

// ParseManifest reads the bytes that a signature was checked over. What it accepts prints back to the same bytes.
func ParseManifest(b []byte) (Manifest, error) {
	m, err := decodeManifest(b)
	if err != nil {
		return Manifest{}, &Error{Code: ErrCBOR, Why: fmt.Sprintf("manifest: %v: %s", err, encodingAdvice), Err: err}
	}
	if err := m.Validate(); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

func decodeManifest(b []byte) (Manifest, error) {
	d := dialect()
	var fields map[uint64]cbor.RawMessage
	if err := d.dec.Unmarshal(b, &fields); err != nil {
		return Manifest{}, err
	}
	extra := make(map[uint64]cbor.RawMessage)
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if key < firstExtra {
			if key == 0 || key > lastKnownKey {
				return Manifest{}, fmt.Errorf("unknown field %d", key)
			}
			continue
		}
		if key > lastExtra {
			return Manifest{}, fmt.Errorf("unknown field %d", key)
		}
		var v any
		if err := d.decode(fields[key], &v); err != nil {
			return Manifest{}, fmt.Errorf("field %d: %w", key, err)
		}
		extra[key] = fields[key]
		delete(fields, key)
	}
	known, err := d.enc.Marshal(fields)
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	if err := d.dec.Unmarshal(known, &m); err != nil {
		return Manifest{}, err
	}
	if len(extra) > 0 {
		m.Extensions = extra
	}
	again, err := m.append()
	if err != nil {
		return Manifest{}, err
	}
	if !bytes.Equal(again, b) {
		return Manifest{}, fmt.Errorf("not in core deterministic encoding")
	}
	return m, nil
}
