package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// record is what is known of a module beside the deployment: enough for the next agent to adopt its instance, or to tell that it has
// to go. Written before the module's first start, on every end, and when an operator decides.
type record struct {
	V     int    `json:"v"`
	Hash  string `json:"hash"` // of what was installed
	Order uint32 `json:"order"`
	Image Image  `json:"image"`
	Stop  string `json:"stop,omitempty"` // signal that ends it, empty = SIGTERM
	decision

	Proven   bool `json:"proven,omitempty"`   // it ran through its probation
	Unproven int  `json:"unproven,omitempty"` // failures before that

	Drift []string `json:"drift,omitempty"` // see Drifts; replaced and never changed

	Boot     string    `json:"boot,omitempty"`     // what follows is about this boot of the device
	Ailing   string    `json:"ailing,omitempty"`   // why it was asked to end, unhealthy as it is: its own end means nothing then
	Restarts int       `json:"restarts,omitempty"` // budget.total
	Began    time.Time `json:"began,omitzero"`     // the program whose end is told here; zero = none has ended
	Exited   time.Time `json:"exited,omitzero"`
	Exit     int       `json:"exit,omitempty"`
	Why      string    `json:"why,omitempty"`
}

// counts tells whether rec knows of the end of inst.
func (rec record) counts(inst sandbox.Instance) bool {
	return !rec.Began.IsZero() && rec.Began.Equal(inst.Started())
}

// applied is the deployment that is carried out: durable before the first module is stopped for it.
type applied struct {
	V       int              `json:"v"`
	Version int64            `json:"version"` // of the desired section
	Desired json.RawMessage  `json:"desired"`
	Images  map[string]Image `json:"images"` // by module
}

const recordVersion = 1

const (
	appliedKey   = "supervisor/applied"
	recordPrefix = "supervisor/module/"
	rangePrefix  = "supervisor/ids/"
)

// load reads a document into value; false when there is none. A later form is refused, as acting on half of it would be wrong.
func (s *Supervisor) load(key string, value any) (bool, error) {
	raw, err := s.cfg.Docs.Get(key)
	if err != nil || raw == nil {
		return false, err
	}
	var form struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(raw, &form); err != nil {
		return false, fmt.Errorf("read %s: %w", key, err)
	}
	if form.V > recordVersion {
		return false, fmt.Errorf("read %s: it has form %d, want at most %d; update the agent", key, form.V, recordVersion)
	}
	if err := json.Unmarshal(raw, value); err != nil {
		return false, fmt.Errorf("read %s: %w", key, err)
	}
	return true, nil
}

func (s *Supervisor) store(ctx context.Context, key string, value any) error {
	raw, err := json.Marshal(value)
	if err == nil {
		err = s.cfg.Docs.Put(ctx, key, raw)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

func (s *Supervisor) saveRecord(ctx context.Context, name string, rec record) error {
	rec.V, rec.Boot = recordVersion, s.cfg.Boot
	return s.store(ctx, recordPrefix+name, rec)
}

// records reads every record, by module. Those of an earlier boot begin with a clean sheet.
func (s *Supervisor) records() (map[string]record, error) {
	keys, err := s.cfg.Docs.Keys(recordPrefix)
	if err != nil {
		return nil, fmt.Errorf("list records of modules: %w", err)
	}
	all := make(map[string]record, len(keys))
	for _, key := range keys {
		var rec record
		ok, err := s.load(key, &rec)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if rec.Boot != s.cfg.Boot {
			rec.Ended, rec.Renew, rec.Ailing, rec.Failures, rec.Restarts = false, time.Time{}, "", 0, 0
		}
		all[strings.TrimPrefix(key, recordPrefix)] = rec
	}
	return all, nil
}

// bootID identifies this boot. Where the kernel does not tell, every start of the agent counts as one.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Sprintf("process %d", os.Getpid())
	}
	return strings.TrimSpace(string(raw))
}

// idBase returns the id range of a module, choosing a free one the first time. A module keeps it for good, also when it is
// removed and comes back: its data belongs to it.
func (s *Supervisor) idBase(ctx context.Context, name string) (uint32, error) {
	keys, err := s.cfg.Docs.Keys(rangePrefix)
	if err != nil {
		return 0, fmt.Errorf("list ranges of user ids: %w", err)
	}
	taken := map[uint32]bool{}
	for _, key := range keys {
		raw, err := s.cfg.Docs.Get(key)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", key, err)
		}
		var index uint32
		if err := json.Unmarshal(raw, &index); err != nil {
			return 0, fmt.Errorf("read %s: %w", key, err)
		}
		if key == rangePrefix+name {
			return s.cfg.IDBase + index*sandbox.IDCount, nil
		}
		taken[index] = true
	}
	for index := range s.maxRanges() {
		if !taken[index] {
			return s.cfg.IDBase + index*sandbox.IDCount, s.store(ctx, rangePrefix+name, index)
		}
	}
	return 0, fmt.Errorf("no free range of user ids for module %s: %d modules have had one on this device", name, len(taken))
}

// IDBase is the first uid of the range of a module of the deployment; false when it has no such module.
func (s *Supervisor) IDBase(ctx context.Context, name string) (uint32, bool, error) {
	s.mu.Lock()
	known := s.applied.Find(name) != nil
	s.mu.Unlock()
	if !known {
		return 0, false, nil
	}
	base, err := s.idBase(ctx, name)
	return base, err == nil, err
}

// maxRanges is how many ranges there are above IDBase: how many modules a device can have seen.
func (s *Supervisor) maxRanges() uint32 { return (1<<32 - 1 - s.cfg.IDBase) / sandbox.IDCount }
