package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLogQueries(t *testing.T) {
	t.Parallel()
	now := noon
	l := newLogFile(filepath.Join(t.TempDir(), "m"), newLogShelf(1<<20, logRate), func() time.Time { return now })
	t.Cleanup(func() { _ = l.Close() })
	for i := range 10 {
		if err := l.put(Stream(i%2), fmt.Appendf(nil, "line %d\n", i)); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
	}
	out, errs := Stdout, Stderr
	for name, c := range map[string]struct {
		q    LogQuery
		want string
	}{
		"everything":         {LogQuery{Tail: -1}, "0123456789"},
		"the last three":     {LogQuery{Tail: 3}, "789"},
		"none":               {LogQuery{}, ""},
		"more than there is": {LogQuery{Tail: 100}, "0123456789"},
		"since minute seven": {LogQuery{Tail: -1, Since: noon.Add(7 * time.Minute)}, "789"},
		"both":               {LogQuery{Tail: 2, Since: noon.Add(7 * time.Minute)}, "89"},
		"since later":        {LogQuery{Tail: -1, Since: noon.Add(time.Hour)}, ""},
		"standard output":    {LogQuery{Tail: -1, Stream: &out}, "02468"},
		"last two errors":    {LogQuery{Tail: 2, Stream: &errs}, "79"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			for line := range strings.Lines(all(t, l, c.q)) {
				got += strings.TrimSuffix(line, "\n")[len(line)-2:]
			}
			if got != c.want {
				t.Errorf("got lines %q, want %q", got, c.want)
			}
		})
	}
	want := `{"time":"2026-01-02T12:09:00Z","stream":"stderr","line":"line 9"}` + "\n"
	if got := all(t, l, LogQuery{Tail: 1, JSON: true}); got != want {
		t.Errorf("as JSON: got %s, want %s", got, want)
	}
	if got, want := all(t, l, LogQuery{Tail: 1}), "2026-01-02T12:09:00.000000Z stderr: line 9\n"; got != want {
		t.Errorf("as text: got %s, want %s", got, want)
	}
	if got := all(t, newLogFile(filepath.Join(t.TempDir(), "none"), newLogShelf(1, 1), time.Now), LogQuery{Tail: -1}); got != "" {
		t.Errorf("a module that printed nothing: got %q", got)
	}
}

func TestFollowMissesNothingOverRotations(t *testing.T) {
	t.Parallel()
	l := testLog(t, 1)
	write(t, l, "before\nhal")
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := l.copy(ctx, &LogQuery{Tail: -1, Follow: true}, nil, out)
		out.Close()
		done <- err
	}()
	const lines = 2000
	seen := make(chan struct{}, lines) // paces the writer: it may be ahead by what the files hold
	go func() {
		for i := range lines {
			if i >= 50 {
				<-seen
			}
			if i == 0 {
				_ = l.put(Stdout, []byte("f a line\n"))
			}
			_ = l.put(Stdout, fmt.Appendf(nil, "line %d\n", i))
		}
	}()
	var got []string
	buf := make([]byte, 0, 1<<20)
	for len(got) < lines+2 {
		n, err := in.Read(buf[len(buf) : len(buf)+4096])
		if err != nil {
			t.Fatal(err)
		}
		buf = buf[:len(buf)+n]
		for {
			i := bytes.IndexByte(buf, '\n')
			if i < 0 {
				break
			}
			got = append(got, strings.TrimPrefix(string(buf[:i]), stamp))
			buf = buf[i+1:]
			seen <- struct{}{}
		}
	}
	cancel()
	go func() { _, _ = io.Copy(io.Discard, in) }()
	if err := <-done; err != nil {
		t.Errorf("follow ended with %v, want nil", err)
	}
	if got[0] != "before" || got[1] != "half a line" {
		t.Errorf("begins with %q", got[:2])
	}
	for i, line := range got[2:] {
		if want := fmt.Sprintf("line %d", i); line != want {
			t.Fatalf("got %q, want %q", line, want)
		}
	}
}
