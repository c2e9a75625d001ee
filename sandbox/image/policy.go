package image

import (
	"slices"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// admit says why a bundle whose signature was checked may not be installed here, or nil. It runs before a payload byte is read.
func (s *Store) admit(head bundle.Head) error {
	m := head.Manifest
	now := uint64(max(s.cfg.Now().Unix(), 0))
	switch {
	case m.Kind != bundle.KindModule:
		return bundle.Reject(bundle.ErrRole, "the bundle is a %v, modules are installed here: use the update commands", m.Kind)
	case m.Image.Format != bundle.FormatEROFS:
		return bundle.Reject(bundle.ErrImage, "the image is %v: build it with sandpiper-bundle build, which writes erofs", m.Image.Format)
	case !slices.Contains(m.Compatible, bundle.AnyClass) && !slices.Contains(m.Compatible, s.cfg.Class):
		return bundle.Reject(bundle.ErrClass, "the bundle is for the device classes %q, this device is %q: build it with --compatible", m.Compatible, s.cfg.Class)
	case s.cfg.Agent != 0 && m.MinAgent > s.cfg.Agent:
		return bundle.Reject(bundle.ErrAgent, "the bundle needs agent sequence %d, this is %d: update the agent", m.MinAgent, s.cfg.Agent)
	case m.Expires != 0 && now > m.Expires:
		return bundle.Reject(bundle.ErrExpired, "the bundle expired on %s: get a newer one, or correct this device's clock", date(m.Expires))
	case now < m.NotBefore:
		return bundle.Reject(bundle.ErrEarly, "the bundle may be installed from %s on: wait, or correct this device's clock", date(m.NotBefore))
	}
	if err := s.cfg.Machine.runs(m.Platform); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sequenceLocked(head); err != nil {
		return err
	}
	return s.dependenciesLocked(m)
}

func (s *Store) sequenceLocked(head bundle.Head) error {
	m := head.Manifest
	fl := s.floors.Modules[m.Name]
	if m.Sequence < fl.Sequence {
		return bundle.Reject(bundle.ErrSequence, "sequence %d of %s is older than %d, which this device has accepted: build it again with a higher --sequence", m.Sequence, m.Name, fl.Sequence)
	}
	if m.Sequence == fl.Latest && !fl.Digest.IsZero() && head.Digest != fl.Digest {
		return bundle.Reject(bundle.ErrSequence, "sequence %d of %s was already used by another bundle: build it again with a higher --sequence", m.Sequence, m.Name)
	}
	for _, r := range s.records {
		if r.Name == m.Name && r.Sequence == m.Sequence && r.Digest != head.Digest {
			return bundle.Reject(bundle.ErrSequence, "sequence %d of %s is already used by the installed bundle %v: build it again with a higher --sequence", m.Sequence, m.Name, r.Digest)
		}
	}
	return nil
}

// dependenciesLocked wants every dependency installed: fetch modules before those that need them.
func (s *Store) dependenciesLocked(m bundle.Manifest) error {
	for _, d := range m.Dependencies {
		met := false
		for _, r := range s.records {
			met = met || (r.Name == d.Name && r.Sequence >= d.Min && (d.Max == 0 || r.Sequence <= d.Max))
		}
		if !met {
			return bundle.Reject(bundle.ErrDependsOn, "the bundle needs module %s from sequence %d, which is not installed: deploy it too, before this one", d.Name, d.Min)
		}
	}
	return nil
}

// date prints a moment of a manifest, whatever its number.
func date(unix uint64) string {
	const latest = 253402300799 // the last second of the year 9999
	return time.Unix(int64(min(unix, latest)), 0).UTC().Format("2006-01-02 15:04:05")
}
