package supervisor

import (
	"testing"
)

func TestNewRefusesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if s, err := New(Config{Device: "edge1"}); err == nil || s != nil {
		t.Errorf("got %v, %v, want an error", s, err)
	}
}
