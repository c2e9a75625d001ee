package store_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/store"
	"github.com/sandpiper-edge/sandpiper/store/storetest"
)

func TestDeliveryIsByPriorityThenAge(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	mustAppend(t, s,
		record("c", to("x", 10)), record("a", to("x", 0)), record("d", to("x", 10), to("y", 3)),
		record("b", to("x", 5)), record("e", to("y", 3), to("y", 3)))
	if got, want := strings.Join(storetest.Bodies(t, s, "x"), " "), "a b c d"; got != want {
		t.Errorf("sink x: got %q, want %q", got, want)
	}
	if got, want := strings.Join(storetest.Bodies(t, s, "y"), " "), "d e"; got != want {
		t.Errorf("sink y: got %q, want %q", got, want)
	}
	if got := storetest.Bodies(t, s, "z"); len(got) > 0 {
		t.Errorf("sink z: got %q, want nothing", got)
	}
}

func TestCursorReadsAheadAndMeetsWhatIsMoreUrgent(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	mustAppend(t, s, record("1", to("x", 5)), record("2", to("x", 5)), record("3", to("x", 5)))
	first, at := mustPeek(t, s, "x", store.Cursor{}, 2)
	mustAppend(t, s, record("urgent", to("x", 0)))
	second, at := mustPeek(t, s, "x", at, 9)
	if got, want := bodies(first)+"|"+bodies(second), "1 2|urgent 3"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if more, _ := mustPeek(t, s, "x", at, 9); len(more) > 0 {
		t.Errorf("behind the end: got %q, want nothing", bodies(more))
	}
	if err := s.Queue().Ack("x", first[1], second[0]); err != nil {
		t.Fatal(err)
	}
	again, _ := mustPeek(t, s, "x", store.Cursor{}, 9)
	if got, want := bodies(again), "1 3"; got != want {
		t.Errorf("from the head: got %q, want what is not acknowledged, %q", got, want)
	}
}

func TestPeekKeepsItsLimits(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		most, bytes int
		want        string
	}{
		"a count":                        {most: 2, want: "aaaa bb"},
		"bytes":                          {most: 9, bytes: 7, want: "aaaa bb"},
		"bytes to the brim":              {most: 9, bytes: 10, want: "aaaa bb cccc"},
		"one item however large":         {most: 9, bytes: 1, want: "aaaa"},
		"no limit of bytes":              {most: 9, want: "aaaa bb cccc"},
		"a count below one means one":    {most: -1, want: "aaaa"},
		"a higher count than there are":  {most: 1 << 30, want: "aaaa bb cccc"},
		"a lower priority is not pulled": {most: 9, bytes: 6, want: "aaaa bb"},
	}
	s := storetest.Open(t, store.Config{})
	mustAppend(t, s, record("aaaa", to("x", 1)), record("bb", to("x", 1)), record("cccc", to("x", 2)))
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			items, _, err := s.Queue().Peek("x", store.Cursor{}, tt.most, tt.bytes)
			if got := bodies(items); err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestAcknowledgedStaysAcknowledgedAfterClose(t *testing.T) {
	t.Parallel()
	cfg := store.Config{Dir: t.TempDir()}
	s, stop := storetest.Start(t, cfg)
	for i := range 10 {
		mustAppend(t, s, record(fmt.Sprint(i), to("x", 3), to("y", 0)))
	}
	items, _ := mustPeek(t, s, "x", store.Cursor{}, 5)
	if err := s.Queue().Ack("x", items[4], items[0], items[1], items[1]); err != nil {
		t.Fatal(err)
	}
	stop()

	s, _ = storetest.Start(t, cfg)
	if got, want := strings.Join(storetest.Bodies(t, s, "x"), " "), "2 3 5 6 7 8 9"; got != want {
		t.Errorf("got %q, want %q: what is ahead of the prefix is remembered too", got, want)
	}
	if got := len(storetest.Bodies(t, s, "y")); got != 10 {
		t.Errorf("the other sink: got %d messages, want 10", got)
	}
	mustAppend(t, s, record("new", to("x", 3)))
	if got := storetest.Bodies(t, s, "x"); got[len(got)-1] != "new" {
		t.Errorf("got %q, want the new message last", got)
	}
}

func TestAReaderThatNeverAcknowledgesIsHeldBack(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	recs := make([]store.Record, 5000)
	for i := range recs {
		recs[i] = record(fmt.Sprint(i), to("x", 0))
	}
	mustAppend(t, s, recs...)
	var at store.Cursor
	var all []store.Item
	for {
		items, next := mustPeek(t, s, "x", at, 1000)
		if len(items) == 0 {
			break
		}
		all, at = append(all, items...), next
	}
	if len(all) != 4096 {
		t.Fatalf("got %d items without an acknowledgement, want 4096", len(all))
	}
	if err := s.Queue().Ack("x", all[2000:]...); err != nil {
		t.Fatal(err)
	}
	items, _ := mustPeek(t, s, "x", at, 1000)
	if len(items) == 0 || string(items[0].Body) != "4096" {
		t.Errorf("after acknowledgements: got %d items, want message 4096 and on", len(items))
	}
}

func TestCursorsAreOnDiskAfterTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := store.Config{Dir: t.TempDir()}
		s, stop := storetest.Start(t, cfg)
		mustAppend(t, s, record("a", to("x", 0)), record("b", to("x", 0)))
		items, _ := mustPeek(t, s, "x", store.Cursor{}, 1)
		before := s.Usage().Commits
		if err := s.Queue().Ack("x", items...); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := s.Usage().Commits - before; got != 0 {
			t.Errorf("at once: got %d commits, want 0", got)
		}
		<-time.After(2*time.Second + time.Millisecond)
		synctest.Wait()
		if got := s.Usage().Commits - before; got != 1 {
			t.Errorf("after two seconds: got %d commits, want 1", got)
		}
		stop()
	})
}
