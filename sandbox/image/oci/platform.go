package oci

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Platform is the machine an image is for, in OCI's words.
type Platform struct {
	OS      string `json:"os"`
	Arch    string `json:"architecture"`
	Variant string `json:"variant,omitempty"`
}

// String is os/arch[/variant].
func (p Platform) String() string {
	return strings.TrimRight(p.OS+"/"+p.Arch+"/"+p.Variant, "/")
}

// Machine is what platforms are compared with.
type Machine struct {
	Arch    []string // Go's names, the kernel's own first
	Variant int      // of 32-bit ARM: 5, 6 or 7
}

// rank says how well p fits: 0 not at all, else the higher the better. 32-bit ARM falls back from v8 over v7 and v6 to v5; of
// 64-bit ARM only v8 is known; amd64's levels above the first are not assumed.
func (m Machine) rank(p Platform) int {
	at := slices.Index(m.Arch, p.Arch)
	if p.OS != "linux" || at < 0 {
		return 0
	}
	base := 100 * (len(m.Arch) - at)
	switch p.Arch {
	case "arm":
		var v int
		if p.Variant == "" {
			v = 7 // as everywhere
		} else if _, err := fmt.Sscanf(p.Variant, "v%d", &v); err != nil {
			return 0
		}
		most := m.Variant
		if m.Arch[0] == "arm64" {
			most = 8
		}
		if v < 5 || v > most {
			return 0
		}
		return base + v
	case "arm64":
		if p.Variant != "" && p.Variant != "v8" {
			return 0
		}
	case "amd64":
		if p.Variant != "" && p.Variant != "v1" {
			return 0
		}
	}
	return base + 9
}

// Runs says why an image for p cannot run here, or nil.
func (m Machine) Runs(p Platform) error {
	if m.rank(p) > 0 {
		return nil
	}
	return bundle.Reject(bundle.ErrArch, "the image is for %v, this machine is linux/%s: build or pull it for this one", p, m.Arch[0])
}

// choose picks from an index. An entry without a platform fits when it is the only image there: its config is compared later.
func (m Machine) choose(list []Descriptor) (Descriptor, error) {
	best, rank := -1, 0
	var there []string
	images := 0
	for i, d := range list {
		if !IsIndex(d.MediaType) && !IsManifest(d.MediaType) || d.Platform != nil && d.Platform.OS == "unknown" {
			continue // an attestation, or something else beside images
		}
		images++
		r := 1
		if d.Platform != nil {
			there = append(there, d.Platform.String())
			r = m.rank(*d.Platform)
		}
		if r > rank {
			best, rank = i, r
		}
	}
	if best < 0 || rank == 1 && images > 1 {
		return Descriptor{}, bundle.Reject(bundle.ErrOCI, "the index has no image for linux/%s, it has %.200q: build it for this machine", m.Arch[0], there)
	}
	return list[best], list[best].check("a manifest", maxDocument)
}
