package route

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestTermsPrintBackAsTheyAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Durability{
		"strict": {}, "relaxed(5s)": {Window: 5 * time.Second}, "relaxed(100ms)": {Window: 100 * time.Millisecond}, "relaxed(1m0s)": {Window: time.Minute},
	} {
		if got, err := ParseDurability(text); err != nil || got != want || got.String() != text {
			t.Errorf("durability %q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]Eviction{"refuse": {}, "oldest-first": {OldestFirst: true}, "newest-per-key(sensorId)": {Key: "sensorId"}, "newest-per-key($.mid)": {Key: "$.mid"}} {
		if got, err := ParseEviction(text); err != nil || got != want || got.String() != text {
			t.Errorf("eviction %q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]Clock{"powered-on": PoweredOn, "wall": Wall} {
		if got, err := ParseClock(text); err != nil || got != want || got.String() != text {
			t.Errorf("clock %q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for want, promise := range map[string]Promise{
		"none": {}, "strict": {Sinks: 1}, "relaxed(2s)": {Sinks: 2, Durability: Durability{Window: 2 * time.Second}},
	} {
		if got := promise.String(); got != want {
			t.Errorf("promise: got %s, want %s", got, want)
		}
	}
}

func TestTermsThatAreNoneSayWhatWouldBe(t *testing.T) {
	t.Parallel()
	for text, parse := range map[string]func(string) error{
		"": durability, "lazy": durability, "relaxed": durability, "relaxed(0s)": durability, "relaxed(99ms)": durability, "relaxed(2m)": durability, "relaxed(5)": durability,
		"newest": eviction, "newest-per-key()": eviction, "newest-per-key( a)": eviction, "newest-per-key(a\n)": eviction, "newest-per-key(a))": eviction,
		"newest-per-key(" + strings.Repeat("a", MaxEvictionKey+1) + ")": eviction, "utc": clock,
	} {
		var fault *ParseError
		if err := parse(text); !errors.As(err, &fault) || !strings.Contains(fault.Want, `"`) {
			t.Errorf("%q: got %v, want a parse error with the allowed words", text, err)
		}
	}
}

func durability(text string) error { _, err := ParseDurability(text); return err }
func eviction(text string) error   { _, err := ParseEviction(text); return err }
func clock(text string) error      { _, err := ParseClock(text); return err }

func FuzzParseTerms(f *testing.F) {
	for _, text := range []string{"strict", "relaxed(5s)", "relaxed(1h)", "oldest-first", "newest-per-key(k)", "newest-per-key(()", "wall", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := ParseDurability(text); err == nil {
			if again, err := ParseDurability(d.String()); err != nil || again != d {
				t.Errorf("durability %q prints as %q, which reads as %v, %v", text, d, again, err)
			}
		}
		if e, err := ParseEviction(text); err == nil && e.String() != text {
			t.Errorf("eviction %q prints as %q", text, e)
		}
		if c, err := ParseClock(text); err == nil && c.String() != text {
			t.Errorf("clock %q prints as %q", text, c)
		}
	})
}
