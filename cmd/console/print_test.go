package console

import (
	"bytes"
	"testing"
)

func TestSizesAreForPeople(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 3 << 19: "1.5 MiB", 5 << 29: "2.5 GiB"} {
		if got := Size(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestATableIsAlignedUnderItsHeading(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := Table(&out, "NAME STATUS", [][]string{{"filter", "running"}, {"a", "-"}}); err != nil {
		t.Fatal(err)
	}
	if want := "NAME    STATUS\nfilter  running\na       -\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestJSONIsIndentedAndLeavesTextAsItIs(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := JSON(&out, map[string]string{"why": "a < b & c"}); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"why\": \"a < b & c\"\n}\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestNothingIsDrawnWhereNobodyWatches(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	Working(&out, "waiting")()
	if out.Len() != 0 {
		t.Errorf("got %q, want nothing", out.String())
	}
}
