package linux

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestBoardAdviceAgreesWithWhatThePinDoes(t *testing.T) {
	s := newSimChip(t, "advise", "RELAY")
	b := newBackend(t, "")
	r := outputAt("advise", "RELAY", 0)
	tr := s.trace(t)
	for _, up := range []bool{true, false} {
		s.pull(t, 0, up)
		got, err := b.Advise(r)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(got)
		if warned := strings.Contains(text, "stands high until the agent drives it, and is safe low"); warned != up {
			t.Errorf("pulled up %v: got %q", up, text)
		}
		if !strings.Contains(text, string(releasePull)) {
			t.Errorf("pulled up %v: got %q, want what the simulator does on release", up, text)
		}
	}
	for _, move := range tr.of(t, 0) {
		if move != "in" {
			t.Errorf("the advice moved the pin: %v", tr.of(t, 0))
		}
	}
	s.pull(t, 0, true)
	l := opened[hal.Line](t, b, r)
	if s.level(t, 0) {
		t.Error("requested safe: the pin is high")
	}
	l.Close()
	if !s.level(t, 0) {
		t.Error("released: the pin stays low, so the advice is wrong")
	}
	r.Line.ActiveLow = true
	if got, err := b.Advise(r); err != nil || strings.Contains(fmt.Sprint(got), "stands") {
		t.Errorf("active low and pulled up: got %v, %v, want no word about the pull", got, err)
	}
	r.Line.Direction = hal.In
	if got, err := b.Advise(r); err != nil || got != nil {
		t.Errorf("an input: got %v, %v, want nothing", got, err)
	}
}
