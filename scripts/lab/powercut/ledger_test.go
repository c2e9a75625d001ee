package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestALedgerIsWhatItsLinesSay(t *testing.T) {
	t.Parallel()
	var l Ledger
	if err := l.Read(strings.NewReader("working\nA 0 1\nA 0 2\nW 1 3\nD prompt 0 1\nP 1 3\nA 2 9\nA 1 7")); err != nil {
		t.Fatal(err)
	}
	want := Ledger{Stored: [producers]uint64{2, 0, 9}, Delivered: map[string][producers]uint64{"prompt": {1}}, Put: [documents]uint64{0, 3}, Asked: [documents]uint64{0, 3}}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("got %+v, want %+v: the last line was cut off", l, want)
	}
	var text strings.Builder
	l.Print(&text)
	var again Ledger
	if err := again.Read(strings.NewReader(text.String())); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("printed and read again: got %+v, %v, want %+v", again, err, want)
	}
}

func TestALineThatIsNoPromiseIsRefused(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"E store is full", "A 0", "A 3 1", "D prompt", "W -1 2", "", "hello"} {
		if err := new(Ledger).Line(line); err == nil {
			t.Errorf("%q: got no error", line)
		}
	}
}

func TestABodyIsKnownAgainAndAChangedOneIsNot(t *testing.T) {
	t.Parallel()
	for n := uint64(1); n < 20; n++ {
		b := body(1, n)
		if p, got, err := parse(b); err != nil || p != 1 || got != n {
			t.Errorf("record %d: got %d, %d, %v", n, p, got, err)
		}
		b[len(b)-1] ^= 1
		if _, _, err := parse(b); err == nil {
			t.Errorf("record %d with one bit changed: got no error", n)
		}
		if got, err := version(2, document(2, n)); err != nil || got != n {
			t.Errorf("document version %d: got %d, %v", n, got, err)
		}
	}
}
