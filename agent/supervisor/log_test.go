package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

const stamp = "2026-01-02T12:00:00.000000Z "

func testLog(t *testing.T, most int64, files int) *logFile {
	t.Helper()
	l := newLogFile(filepath.Join(t.TempDir(), "m"), most, files, func() time.Time { return noon })
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func write(t *testing.T, l *logFile, text string) {
	t.Helper()
	if n, err := l.Write([]byte(text)); err != nil || n != len(text) {
		t.Fatalf("write: %d, %v", n, err)
	}
}

func all(t *testing.T, l *logFile, q LogQuery) string {
	t.Helper()
	var out bytes.Buffer
	if err := l.copy(t.Context(), q, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// text is all of a log without its stamps.
func text(t *testing.T, l *logFile) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(all(t, l, LogQuery{Tail: -1})) {
		if !strings.HasPrefix(line, stamp) {
			t.Errorf("line without its time: %.60q", line)
		}
		out.WriteString(strings.TrimPrefix(line, stamp))
	}
	return out.String()
}

func TestLinesAreStampedHoweverTheyArrive(t *testing.T) {
	t.Parallel()
	for name, pieces := range map[string][]string{
		"at once":              {"one\ntwo\n\nthree\n"},
		"byte by byte":         strings.Split("one\ntwo\n\nthree\n", ""),
		"half lines":           {"on", "e\ntw", "o\n", "\n", "three", "\n"},
		"without a last break": {"one\ntwo\n\nthree"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testLog(t, 1<<20, 4)
			for _, piece := range pieces {
				write(t, l, piece)
			}
			if got, want := text(t, l), "one\ntwo\n\nthree\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestNextAgentGoesOnInTheMiddleOfALine(t *testing.T) {
	t.Parallel()
	l := testLog(t, 1<<20, 4)
	write(t, l, "one\nhalf a li")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = newLogFile(l.dir, l.max, l.files, l.now)
	write(t, l, "ne\ntwo\n")
	if got, want := text(t, l), "one\nhalf a line\ntwo\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_ = l.Close()
}

func TestLongLinesAreCut(t *testing.T) {
	t.Parallel()
	l := testLog(t, 1<<20, 4)
	long := strings.Repeat("x", 2*maxLine+5)
	write(t, l, long[:100])
	write(t, l, long[100:]+"\nend\n")
	write(t, l, strings.Repeat("y", maxLine)+"\nend\n")
	got := text(t, l)
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(lines) != 6 || len(lines[0]) != maxLine || len(lines[1]) != maxLine || len(lines[2]) != 5 || len(lines[4]) != maxLine || lines[5] != "end" {
		t.Errorf("got %d lines of %d bytes", len(lines), len(got))
	}
	if strings.Count(got, "x") != len(long) || strings.Count(got, "y") != maxLine {
		t.Error("text is lost")
	}
}

func TestRotationKeepsTheNewestWithinBounds(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]int{"four files": 4, "one file": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := testLog(t, 1000, files)
			for i := range 500 {
				write(t, l, fmt.Sprintf("line %03d of the log\n", i))
			}
			entries, err := os.ReadDir(l.dir)
			if err != nil || len(entries) != files {
				t.Fatalf("got %v, %v, want %d files", entries, err, files)
			}
			for _, e := range entries {
				if info, err := e.Info(); err != nil || info.Size() > 1000+100 || info.Mode() != 0o600 {
					t.Errorf("%s: got %d bytes %v, %v", e.Name(), info.Size(), info.Mode(), err)
				}
			}
			lines := strings.Split(strings.TrimSuffix(text(t, l), "\n"), "\n")
			for i, line := range lines {
				if want := fmt.Sprintf("line %03d of the log", 500-len(lines)+i); line != want {
					t.Fatalf("got %q, want %q", line, want)
				}
			}
			if len(lines) < 1000*(files-1)/48 {
				t.Errorf("only %d lines are kept", len(lines))
			}
		})
	}
}

func TestLogQueries(t *testing.T) {
	t.Parallel()
	now := noon
	l := newLogFile(filepath.Join(t.TempDir(), "m"), 200, 4, func() time.Time { return now })
	t.Cleanup(func() { _ = l.Close() })
	for i := range 10 {
		write(t, l, fmt.Sprintf("line %d\n", i))
		now = now.Add(time.Minute)
	}
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
	if got := all(t, newLogFile(filepath.Join(t.TempDir(), "none"), 1, 1, nil), LogQuery{Tail: -1}); got != "" {
		t.Errorf("a module that printed nothing: got %q", got)
	}
}

func TestFollowMissesNothingOverRotations(t *testing.T) {
	t.Parallel()
	l := testLog(t, 2000, 4)
	write(t, l, "before\nhal")
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := l.copy(ctx, LogQuery{Tail: -1, Follow: true}, out)
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
				_, _ = l.Write([]byte("f a line\n"))
			}
			fmt.Fprintf(l, "line %d\n", i)
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

// fifoOf gives both ends of a log FIFO; the writer is a module's and keeps the pipe alive.
func fifoOf(t *testing.T) (path string, module *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fifo")
	module, err := sandbox.OpenLogWriter(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { module.Close() })
	return path, module
}

func openSource(t *testing.T, path string) source {
	t.Helper()
	from, err := openFIFO(path)
	if err != nil {
		t.Fatal(err)
	}
	return from
}

func TestCollectLosesNothingOverAgents(t *testing.T) {
	t.Parallel()
	path, module := fifoOf(t)
	l := testLog(t, 1<<20, 4)
	const lines = 20000
	go func() {
		for i := range lines {
			fmt.Fprintf(module, "line %d\n", i)
		}
	}()
	for agents, done := 0, false; !done; agents++ {
		ctx, cancel := context.WithCancel(t.Context())
		from := openSource(t, path)
		var all sync.WaitGroup
		all.Go(func() { collect(ctx, from, l, slog.New(slog.DiscardHandler)) })
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		<-changed
		cancel()
		all.Wait()
		if err := from.close(); err != nil {
			t.Fatal(err)
		}
		done = strings.HasSuffix(text(t, l), fmt.Sprintf("line %d\n", lines-1))
	}
	for i, line := range strings.Split(strings.TrimSuffix(text(t, l), "\n"), "\n") {
		if want := fmt.Sprintf("line %d", i); line != want {
			t.Fatalf("got %q, want %q", line, want)
		}
	}
}

func TestAgentKilledBetweenWriteAndTakeLosesNothing(t *testing.T) {
	t.Parallel()
	path, module := fifoOf(t)
	fmt.Fprint(module, "one\ntwo\nthr")
	buf := make([]byte, chunk)
	dead := openSource(t, path)
	if n, err := dead.peek(buf); err != nil || string(buf[:n]) != "one\ntwo\nthr" {
		t.Fatalf("peek: %q, %v", buf[:n], err)
	}
	if err := dead.close(); err != nil { // it dies here: nothing was taken
		t.Fatal(err)
	}
	fmt.Fprint(module, "ee\n")
	from := openSource(t, path)
	defer from.close()
	n, err := from.peek(buf)
	if err != nil || string(buf[:n]) != "one\ntwo\nthree\n" {
		t.Fatalf("the next agent sees %q, %v", buf[:n], err)
	}
	if err := from.take(8); err != nil {
		t.Fatal(err)
	}
	if n, err = from.peek(buf); err != nil || string(buf[:n]) != "three\n" {
		t.Fatalf("after taking two lines: %q, %v", buf[:n], err)
	}
	if err := from.take(n); err != nil {
		t.Fatal(err)
	}
	from.interrupt()
	if n, err = from.peek(buf); n != 0 || err != nil {
		t.Errorf("interrupted and empty: got %d, %v, want 0, nil", n, err)
	}
}

func TestLastWordsAreCollected(t *testing.T) {
	t.Parallel()
	path, module := fifoOf(t)
	l := testLog(t, 1<<20, 4)
	from := openSource(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	fmt.Fprint(module, "last words\n")
	cancel()
	collect(ctx, from, l, slog.New(slog.DiscardHandler))
	if err := from.close(); err != nil {
		t.Fatal(err)
	}
	if got := text(t, l); got != "last words\n" {
		t.Errorf("got %q", got)
	}
}

func TestDiskThatIsFullStopsNoModule(t *testing.T) {
	t.Parallel()
	path, module := fifoOf(t)
	l := testLog(t, 1<<20, 4)
	if err := os.WriteFile(l.dir, nil, 0o600); err != nil { // where the directory would be
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	from := openSource(t, path)
	var collecting sync.WaitGroup
	collecting.Go(func() { collect(ctx, from, l, slog.New(slog.DiscardHandler)) })
	sent := 0
	for sent < 4*sandbox.LogPipe { // more than the pipe holds
		n, err := fmt.Fprintln(module, strings.Repeat("x", 1000))
		if err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	if err := os.Remove(l.dir); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	changed := l.changed
	l.mu.Unlock()
	fmt.Fprintln(module, "space again")
	<-changed
	cancel()
	collecting.Wait()
	if err := from.close(); err != nil {
		t.Fatal(err)
	}
	got := text(t, l)
	if !strings.Contains(got, "bytes of output dropped: the log could not be written\n") || !strings.HasSuffix(got, "space again\n") {
		t.Errorf("got %.300q", got)
	}
}
