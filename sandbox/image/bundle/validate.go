package bundle

import (
	"slices"
	"strings"
	"unicode"
)

// Limits of manifest fields, in bytes and elements.
const (
	maxName    = 63
	maxText    = 64
	maxClasses = 16
	maxDepends = 32
	maxProbe   = 4096
)

// chunkerV1 is the only chunker of format 1: gear table, min, average and max chunk length.
var chunkerV1 = [4]uint32{1, MinChunk, AverageChunk, MaxChunk}

// Validate checks every rule of the manifest that needs nothing but the manifest.
func (m Manifest) Validate() error {
	checks := []error{
		check(m.Schema == schema, "schema %d, want %d", m.Schema, schema),
		check(ValidModuleName(m.Name), "name %q, want a lower-case letter and up to 62 letters, digits or dashes", m.Name),
		check(validText(m.Version, maxText), "version %q, want 1 to %d printable characters", m.Version, maxText),
		check(m.Kind >= KindModule && m.Kind <= KindSystem, "kind %d, want 1, 2 or 3", m.Kind),
		m.validCompatible(),
		m.Platform.validate(),
		m.Image.validate(),
		m.Index.validate(),
		m.validDependencies(),
		check(m.Expires == 0 || m.NotBefore < m.Expires, "expires %d, want after not-before %d", m.Expires, m.NotBefore),
		check(m.Floor <= m.Sequence, "floor %d, want at most the sequence %d", m.Floor, m.Sequence),
		check(m.Runtime == nil || m.Kind == KindModule, "a runtime, which only a module has"),
	}
	if m.Runtime != nil {
		checks = append(checks, m.Runtime.validate())
	}
	if b := m.Build; b != nil {
		checks = append(checks, check(optionalText(b.Source, maxProbe), "build source %q, want printable characters", b.Source),
			check(len(b.Tools) <= maxClasses && !slices.ContainsFunc(b.Tools, func(s string) bool { return !validText(s, maxText) }),
				"build tools %q, want up to %d short texts", b.Tools, maxClasses))
	}
	if m.Health != nil {
		checks = append(checks, check(optionalText(m.Health.Probe, maxProbe), "health probe %q, want printable characters", m.Health.Probe))
	}
	for key := range m.Extensions {
		checks = append(checks, check(key >= firstExtra && key <= lastExtra, "extension %d, want %d to %d", key, firstExtra, lastExtra))
	}
	return first(checks)
}

func (m Manifest) validCompatible() error {
	if n := len(m.Compatible); n < 1 || n > maxClasses {
		return check(false, "%d compatible device classes, want 1 to %d", n, maxClasses)
	}
	for _, class := range m.Compatible {
		if !validText(class, maxText) {
			return check(false, "device class %q, want 1 to %d printable characters", class, maxText)
		}
		if class == AnyClass && m.Kind != KindModule {
			return check(false, "device class \"*\", which only a module may have")
		}
	}
	return nil
}

// AnyClass is the device class that every device belongs to.
const AnyClass = "*"

func (p Platform) validate() error {
	return first([]error{
		check(p.OS == "linux", "os %q, want linux", p.OS),
		check(validWord(p.Arch, 16), "arch %q, want a name such as arm64", p.Arch),
		check(p.Variant == "" || slices.Contains([]string{"v5", "v6", "v7", "v8", "v9"}, p.Variant), "variant %q, want v5 to v9", p.Variant),
		check(p.Kernel == "" || validKernel(p.Kernel), "lowest kernel %q, want major.minor", p.Kernel),
	})
}

func (i ImageInfo) validate() error {
	return first([]error{
		check(i.Format == FormatEROFS || i.Format == FormatSquashFS, "image format %d, want 1 or 2", i.Format),
		check(i.Size > 0 && i.Size%dataAlign == 0 && i.Size <= MaxPayload, "image of %d bytes, want a multiple of %d", i.Size, dataAlign),
	})
}

func (i IndexInfo) validate() error {
	return first([]error{
		check(i.Size > 0 && i.Size%entrySize == 0 && i.Size <= MaxIndex, "index of %d bytes, want a multiple of %d up to %d", i.Size, entrySize, MaxIndex),
		check(i.Payload > 0 && i.Payload <= MaxPayload, "payload of %d bytes, want 1 to %d", i.Payload, uint64(MaxPayload)),
		check(i.Chunker == chunkerV1, "chunker %v, want %v", i.Chunker, chunkerV1),
	})
}

func (m Manifest) validDependencies() error {
	if len(m.Dependencies) > maxDepends {
		return check(false, "%d dependencies, want up to %d", len(m.Dependencies), maxDepends)
	}
	for _, d := range m.Dependencies {
		if !ValidModuleName(d.Name) || d.Name == m.Name || (d.Max != 0 && d.Max < d.Min) {
			return check(false, "dependency %q from %d to %d, want another module's name and a range", d.Name, d.Min, d.Max)
		}
	}
	return nil
}

// ValidModuleName reports whether s may name a module in a manifest.
func ValidModuleName(s string) bool {
	if s == "" || len(s) > maxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func validWord(s string, limit int) bool {
	return s != "" && len(s) <= limit && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func validText(s string, limit int) bool { return s != "" && optionalText(s, limit) }

func optionalText(s string, limit int) bool {
	return len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func validKernel(s string) bool {
	major, minor, ok := strings.Cut(s, ".")
	return ok && validNumber(major) && validNumber(minor)
}

func validNumber(s string) bool {
	return s != "" && len(s) <= 4 && strings.Trim(s, "0123456789") == "" && (s == "0" || s[0] != '0')
}

// check is nil when ok, else the refusal of one field.
func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return Reject(ErrField, "manifest: "+format, args...)
}

func first(checks []error) error {
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	return nil
}
