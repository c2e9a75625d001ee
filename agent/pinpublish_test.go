package agent

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// What a manifest says of readings to publish names only what is granted, and keeps within the bounds.
func FuzzPinPublish(f *testing.F) {
	f.Add([]byte(`[{"read":["level"],"every":"1s","output":"tank","batch":10,"deadband":0.5,"at_least":"1m"}]`))
	f.Add([]byte(`[{"watch":"door","output":"door","min_interval":"100ms"}]`))
	f.Add([]byte(`[{"read":["level","door"],"every":"10ms","output":"o"},{"read":["other"],"every":"1s","output":"o"}]`))
	f.Add([]byte(`null`))
	grants := []hal.Grant{{Name: "level", Read: true}, {Name: "door", Read: true}, {Name: "other", Write: true}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) { // it is a member of a document that was parsed
			return
		}
		list, err := parsePublish(raw, grants)
		if err != nil {
			return
		}
		for _, p := range list {
			if p.Batch < 1 || p.Batch > maxPinBatch || p.Output == "" || len(p.Read) > 0 && time.Duration(p.Every) < leastEvery {
				t.Errorf("got %+v", p)
			}
			for _, name := range p.Read {
				if name != "level" && name != "door" {
					t.Errorf("got %q, which is not granted", name)
				}
			}
		}
	})
}
