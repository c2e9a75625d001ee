package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestAFollowerGoesOnBehindAnyLine(t *testing.T) {
	t.Parallel()
	l := testLog(t, 1)
	for i := range 200 {
		if err := l.put(Stream(i/3%2), fmt.Appendf(nil, "line %d of a log\nand a ", i)); err != nil {
			t.Fatal(err)
		}
	}
	marked := all(t, l, LogQuery{Tail: -1, Marks: true})
	lines := strings.SplitAfter(marked, "\n")
	out := Stdout
	for i, line := range lines {
		mark, _, ok := strings.Cut(line, " ")
		if !ok {
			continue // where it ended, and the end of what was split
		}
		place, err := ParsePlace(mark)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := all(t, l, LogQuery{Tail: 1, Since: noon.Add(time.Hour), Marks: true, After: &place}), strings.Join(lines[i+1:], ""); got != want {
			t.Fatalf("after %s: got\n%s\nwant\n%s", mark, got, want)
		}
		rest := strings.Count(all(t, l, LogQuery{After: &place}), "\n") - strings.Count(all(t, l, LogQuery{After: &place, Stream: &out}), "\n")
		if want := strings.Count(strings.Join(lines[i+1:], ""), "stderr: "); rest != want {
			t.Fatalf("after %s: standard output is without %d lines, want without %d", mark, rest, want)
		}
	}
	if got, want := all(t, l, LogQuery{After: &Place{Segment: 1 << 20}}), all(t, l, LogQuery{Tail: -1}); got != want {
		t.Errorf("after a place that another log had: got\n%s\nwant everything", got)
	}
}

func TestPlacesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "1", "1.", ".1", "-1.2", "1.-2", "1.2.3", "a.b", "99999999999999999999.1"} {
		if p, err := ParsePlace(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, p)
		}
	}
	if p, err := ParsePlace("12.345"); err != nil || p.String() != "12.345" {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestAFollowerStaysWithTheNameOfAModule(t *testing.T) {
	live(t, func(t *testing.T, d *device) {
		d.deploy(map[string]string{"a": wanted("x", "always", ``, ``)})
		put := func(line string) {
			u, err := d.s.unit("a")
			if err == nil {
				err = u.output.put(Stdout, []byte(line+"\n"))
			}
			if err != nil {
				t.Error(err)
			}
		}
		put("one")
		in, out := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := d.s.Logs(context.Background(), "a", LogQuery{Tail: -1, Follow: true}, out)
			out.Close()
			ended <- err
		}()
		got := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(in)
			got <- all
		}()
		pass(time.Second)
		d.deploy(map[string]string{"a": wanted("y", "always", ``, ``)})
		put("two")
		pass(time.Second)
		d.deploy(map[string]string{})
		pass(time.Second)
		if err := <-ended; !errors.Is(err, ErrNoModule) {
			t.Errorf("ended with %v, want that it is gone", err)
		}
		all := <-got
		if bytes.Count(all, []byte("\n")) != 2 || !bytes.Contains(all, []byte(" one\n")) || !bytes.HasSuffix(all, []byte(" two\n")) {
			t.Errorf("got %q, want each line once", all)
		}
	})
}
