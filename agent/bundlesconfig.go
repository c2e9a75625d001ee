package agent

import (
	"fmt"
	"path/filepath"

	"github.com/sandpiper-edge/sandpiper/sandbox/image"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Bundles says whose bundles are installed and where they may come from.
type Bundles struct {
	TrustedKeys []TrustedKey `toml:"trusted_keys"` // default: each file in DefaultKeyDir
	TrustedCA   string       `toml:"trusted_ca"`   // PEM file that replaces the system's roots for https:// bundles
	MaxBytes    Size         `toml:"max_bytes"`    // all installed images together; default 1 GiB
	Mirrors     []Mirror     `toml:"mirrors"`      // where else bundles may be had
	Rate        Size         `toml:"rate"`         // bytes per second of all transfers; default as fast as it goes
	Metered     []string     `toml:"metered"`      // interfaces whose traffic costs, "*" = all; default none
	Monthly     Size         `toml:"monthly"`      // bytes per calendar month (UTC) over metered interfaces; default no bound
}

// TrustedKey is one signer, and the modules it may sign for.
type TrustedKey struct {
	File    string   `toml:"file"`    // public key as `sandpiper-bundle keygen` writes it
	Modules []string `toml:"modules"` // module name prefixes; empty = every module
}

// Mirror says where else than under Prefix its files are.
type Mirror struct {
	Prefix string   `toml:"prefix"` // https:// URL that ends in /
	URLs   []string `toml:"urls"`   // the same; asked in this order, after Prefix itself
}

func (b Bundles) mirrors() image.Mirrors {
	var list image.Mirrors
	for _, m := range b.Mirrors {
		list = append(list, image.Mirror{Prefix: m.Prefix, URLs: m.URLs})
	}
	return list
}

// problems tells what is wrong with the section.
func (b Bundles) problems(bad func(key, format string, args ...any)) {
	if b.MaxBytes != 0 && b.MaxBytes < 1<<20 {
		bad("bundles.max_bytes", "%d bytes is too small; want at least 1MiB", b.MaxBytes)
	}
	if b.Rate != 0 && b.Rate < 1<<10 {
		bad("bundles.rate", "%d bytes a second is too slow for any image; want at least 1KiB", b.Rate)
	}
	if b.Monthly < 0 || (b.Monthly > 0 && len(b.Metered) == 0) {
		bad("bundles.monthly", "no interface is metered; want bundles.metered = [\"wwan0\"], or [\"*\"] for all")
	}
	if err := b.mirrors().Validate(); err != nil {
		bad("bundles.mirrors", "%v", err)
	}
	for i, key := range b.TrustedKeys {
		if key.File == "" {
			bad("bundles.trusted_keys", "entry %d has no file", i+1)
		}
	}
}

// DefaultKeyDir holds the signers of a device whose configuration names none: each *.pub file, for every module.
const DefaultKeyDir = "/etc/sandpiper/keys"

// signers reads the signers that the configuration names, or those that the image's builder put into DefaultKeyDir.
func (c Config) signers() ([]bundle.PublicKey, error) {
	named := c.Bundles.TrustedKeys
	if len(named) == 0 {
		files, err := filepath.Glob(filepath.Join(DefaultKeyDir, "*.pub"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			named = append(named, TrustedKey{File: file})
		}
	}
	keys := make([]bundle.PublicKey, 0, len(named))
	for _, t := range named {
		raw, err := readSmall(t.File, 64<<10)
		if err != nil {
			return nil, fmt.Errorf("%w: bundles.trusted_keys: %w", ErrConfig, err)
		}
		key, err := bundle.ParsePublicKey(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: bundles.trusted_keys: %s: %w", ErrConfig, t.File, err)
		}
		key.Name, key.Prefixes = t.File, t.Modules
		keys = append(keys, key)
	}
	return keys, nil
}
