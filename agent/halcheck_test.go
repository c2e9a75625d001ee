package agent

import (
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/checkup"
	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestCheckSaysWhatOfTheBoardDisagreesWithTheConfiguredPins(t *testing.T) {
	t.Parallel()
	relay := []hal.LineConfig{{Named: hal.Named{Name: "relay"}, LinePart: hal.LinePart{Chip: "no-such-chip", Line: "GPIO17", Direction: hal.Out}, Safe: hal.SafeWord{Value: new(float64)}}}
	for name, c := range map[string]struct {
		cfg  hal.Config
		want string
	}{
		"nothing named":     {hal.Config{}, ""},
		"a simulated board": {hal.Config{Backend: "sim", Line: relay}, "warning the board is simulated"},
		"a missing chip":    {hal.Config{Line: relay}, "warning gone: relay: GPIO chip \"no-such-chip\""},
	} {
		var got []string
		Config{Hal: c.cfg}.checkPins(t.Context(), func(level checkup.Level, what, _ string) { got = append(got, string(level)+" "+what) })
		if text := strings.Join(got, "\n"); !strings.HasPrefix(text, c.want) || c.want == "" && text != "" {
			t.Errorf("%s: got %q, want %q", name, text, c.want)
		}
	}
}
