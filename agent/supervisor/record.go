package supervisor

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// record is what is known of a unit without looking at anything else: enough for the next agent to adopt its instance.
type record struct {
	V     int    `json:"v"`
	Hash  string `json:"hash"`
	Order uint32 `json:"order"`
	Image Image  `json:"image"`
	Down  bool   `json:"down"` // an operator stopped it
}

const recordVersion = 1

const (
	recordPrefix = "supervisor/module/"
	rangePrefix  = "supervisor/ids/"
)

func (s *Supervisor) loadRecord(name string) (rec record, ok bool, err error) {
	raw, err := s.cfg.Docs.Get(recordPrefix + name)
	if err != nil || raw == nil {
		return record{}, false, err
	}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return record{}, false, fmt.Errorf("record of module %s: %w", name, err)
	}
	if rec.V > recordVersion {
		return record{}, false, fmt.Errorf("record of module %s has form %d, want at most %d; update the agent", name, rec.V, recordVersion)
	}
	return rec, true, nil
}

func (s *Supervisor) saveRecord(ctx context.Context, name string, rec record) error {
	rec.V = recordVersion
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return s.cfg.Docs.Put(ctx, recordPrefix+name, raw)
}

// holdDown notes whether an operator wants a module to stay stopped.
func (s *Supervisor) holdDown(ctx context.Context, name string, down bool) error {
	rec, ok, err := s.loadRecord(name)
	if err != nil {
		return err
	}
	if ok && rec.Down != down {
		rec.Down = down
		if err := s.saveRecord(ctx, name, rec); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.stopped[name] = down
	s.mu.Unlock()
	return nil
}

// idBase returns the id range of a module, choosing a free one the first time. A module keeps it for good, also when it is
// removed and comes back: its data belongs to it.
func (s *Supervisor) idBase(ctx context.Context, name string) (uint32, error) {
	keys, err := s.cfg.Docs.Keys(rangePrefix)
	if err != nil {
		return 0, err
	}
	taken := map[uint32]bool{}
	for _, key := range keys {
		raw, err := s.cfg.Docs.Get(key)
		if err != nil {
			return 0, err
		}
		var index uint32
		if err := json.Unmarshal(raw, &index); err != nil {
			return 0, fmt.Errorf("id range %s: %w", key, err)
		}
		if key == rangePrefix+name {
			return s.cfg.IDBase + index*sandbox.IDCount, nil
		}
		taken[index] = true
	}
	for index := uint32(0); index < maxRanges; index++ {
		if !taken[index] {
			return s.cfg.IDBase + index*sandbox.IDCount, s.cfg.Docs.Put(ctx, rangePrefix+name, fmt.Appendf(nil, "%d", index))
		}
	}
	return 0, fmt.Errorf("no free range of user ids for module %s: %d modules have had one on this device", name, maxRanges)
}

// maxRanges bounds how many modules a device can have seen; 16384 ranges of 65536 fit below 2^30.
const maxRanges = 8192
