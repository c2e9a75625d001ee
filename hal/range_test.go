package hal_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestALengthOfTimeIsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(map[string]any{"for": hal.Duration(90 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	var back struct{ For hal.Duration }
	if err := json.Unmarshal(raw, &back); err != nil || time.Duration(back.For) != 90*time.Second {
		t.Errorf("%s: got %v, %v, want 1m30s", raw, back.For, err)
	}
}
