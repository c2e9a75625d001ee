package state

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
)

// ErrKey is a key that names no document.
var ErrKey = errors.New("not a document key")

// Kinds of document that belong to a device or to a module.
const (
	KindIdentity = "id"  // identity: generation, status, authentication
	KindService  = "svc" // the service's half of a twin: tags, desired, the ring of last patches
	KindReported = "rep" // the device's half of a twin
	KindSession  = "ses" // MQTT subscription set and what was last delivered
	KindImports  = "imp" // how far each lane of each of the device's stores came by exports
)

// Kinds of document that belong to the hub itself. KindRecord has no name, KindPolicy is named by its policy.
const (
	KindRecord = "hub"
	KindPolicy = "policy"
)

// Key names one document. Device is empty for the hub's own documents; Name is then the item's name and may be empty.
// With a device, Name is the module, empty for the device itself.
type Key struct {
	Device string
	Name   string
	Kind   string
}

// String is the key as stored: "dev.id", "dev.m.mod.id", "policy.iothubowner", each identifier one escaped token.
func (k Key) String() string {
	switch {
	case k.Device == "" && k.Name == "":
		return k.Kind
	case k.Device == "":
		return k.Kind + "." + escape(k.Name)
	case k.Name == "":
		return escape(k.Device) + "." + k.Kind
	}
	return escape(k.Device) + ".m." + escape(k.Name) + "." + k.Kind
}

// ParseKey reads what String writes for the documents of devices and modules.
func ParseKey(text string) (Key, error) {
	parts := strings.Split(text, ".")
	var k Key
	var err error
	switch {
	case len(parts) == 2:
		k.Kind = parts[1]
	case len(parts) == 4 && parts[1] == "m":
		k.Kind = parts[3]
		if k.Name, err = unescape(parts[2]); err != nil {
			return Key{}, fmt.Errorf("parse key %q: %w", text, err)
		}
	default:
		return Key{}, fmt.Errorf("parse key %q: %w", text, ErrKey)
	}
	if k.Device, err = unescape(parts[0]); err != nil {
		return Key{}, fmt.Errorf("parse key %q: %w", text, err)
	}
	switch k.Kind {
	case KindIdentity, KindService, KindReported, KindSession, KindImports:
		return k, nil
	}
	return Key{}, fmt.Errorf("parse key %q: %w", text, ErrKey)
}

// shardOf places a device. The function is part of the stored format.
func shardOf(device string, shards int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(device)) // never fails: hash.Hash
	return int(h.Sum32() % uint32(shards))
}
