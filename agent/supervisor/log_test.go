package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

const stamp = "2026-01-02T12:00:00.000000Z "

func testLog(t *testing.T, total int64) *logFile {
	t.Helper()
	l := newLogFile(filepath.Join(t.TempDir(), "m"), newLogShelf(total, logRate), func() time.Time { return noon })
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// reopen is the log as the next agent opens it.
func reopen(t *testing.T, l *logFile) *logFile {
	t.Helper()
	_ = l.Close()
	l = newLogFile(l.dir, newLogShelf(l.shelf.total, l.rate), l.now)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func write(t *testing.T, l *logFile, text string) {
	t.Helper()
	if err := l.put(Stdout, []byte(text)); err != nil {
		t.Fatal(err)
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
			l := testLog(t, 8<<20)
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
	l := testLog(t, 8<<20)
	write(t, l, "one\nhalf a li")
	l = reopen(t, l)
	write(t, l, "ne\ntwo\n")
	if got, want := text(t, l), "one\nhalf a line\ntwo\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	t.Parallel()
	l := testLog(t, 8<<20)
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
	l := testLog(t, 1) // the least segments
	const lines = 8000
	for i := range lines {
		write(t, l, fmt.Sprintf("line %04d of the log\n", i))
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil || len(entries) == 0 || len(entries) > logSegments {
		t.Fatalf("got %v, %v, want 1 to %d files", entries, err, logSegments)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() > logLeast+100 || info.Mode() != 0o600 {
			t.Errorf("%s: got %d bytes %v, %v", e.Name(), info.Size(), info.Mode(), err)
		}
	}
	got := strings.Split(strings.TrimSuffix(text(t, l), "\n"), "\n")
	for i, line := range got {
		if want := fmt.Sprintf("line %04d of the log", lines-len(got)+i); line != want {
			t.Fatalf("got %q, want %q", line, want)
		}
	}
}

func TestAllLogsTogetherAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const total = 400 << 10
	shelf := newLogShelf(total, logRate)
	var logs []*logFile
	for i := range 4 {
		l := newLogFile(filepath.Join(dir, fmt.Sprint(i)), shelf, func() time.Time { return noon })
		t.Cleanup(func() { _ = l.Close() })
		logs = append(logs, l)
	}
	line := strings.Repeat("x", 999) + "\n"
	for i := range 1000 {
		write(t, logs[0], line)
		if i%20 == 0 {
			write(t, logs[1+i/20%3], line)
		}
	}
	var sum int64
	for _, l := range logs {
		size, _ := l.weight()
		sum += size
	}
	if sum > total || sum < total/4 {
		t.Errorf("got %d bytes of logs, want at most %d and most of it", sum, total)
	}
	for i, l := range logs[1:] {
		if got := strings.Count(text(t, l), "\n"); got < 16 {
			t.Errorf("log %d: got %d lines, want all of the quiet module's: the loud one makes room", i+1, got)
		}
	}
	if err := shelf.remove(logs[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(logs[0].dir); !os.IsNotExist(err) {
		t.Errorf("log of a removed module: got %v", err)
	}
	newLogShelf(total, logRate).sweep(dir)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("logs that belong to nobody: got %v, %v, want none", entries, err)
	}
}

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
	l := testLog(t, 8<<20)
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
		all.Go(func() { collector{Stdout, from, l, slog.New(slog.DiscardHandler)}.run(ctx) })
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

func TestAgentKilledAtAnyMomentLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	const half = "one\ntwo\nthr"
	header := piece{stream: Stdout, size: 200, at: noon}.append(nil)
	for name, left := range map[string]struct {
		file  string // what the dead agent left at the end of the segment
		pipe  string // what it left in the pipe
		wants string
	}{
		"before the header":             {"", half, half + "ee\n"},
		"in the middle of the header":   {string(header[:11]), half, half + "ee\n"},
		"between header and text":       {string(header), half, half + "ee\n"},
		"in the middle of the text":     {string(header) + half[:5], half[5:], half + "ee\n"},
		"after the text, less than was": {string(header) + half, "", half + "ee\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, module := fifoOf(t)
			l := testLog(t, 8<<20)
			write(t, l, "zero\n")
			_ = l.Close()
			f, err := os.OpenFile(l.name(1), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(left.file); err != nil {
				t.Fatal(err)
			}
			f.Close()
			fmt.Fprint(module, left.pipe)
			l = reopen(t, l)
			fmt.Fprint(module, "ee\n")
			collectAll(t, path, l)
			if got, want := text(t, l), "zero\n"+left.wants; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// collectAll collects what is in a FIFO.
func collectAll(t *testing.T, path string, l *logFile) {
	t.Helper()
	from := openSource(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	collector{Stdout, from, l, slog.New(slog.DiscardHandler)}.run(ctx)
	if err := from.close(); err != nil {
		t.Fatal(err)
	}
}

func TestAFloodIsDroppedInWholeLinesAndCountedInItsPlace(t *testing.T) {
	t.Parallel()
	path, module := fifoOf(t)
	var clock atomic.Int64
	shelf := newLogShelf(8<<20, 16<<10)
	l := newLogFile(filepath.Join(t.TempDir(), "m"), shelf, func() time.Time { return noon.Add(time.Duration(clock.Load())) })
	t.Cleanup(func() { _ = l.Close() })
	var said bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	from := openSource(t, path)
	var collecting sync.WaitGroup
	collecting.Go(func() { collector{Stdout, from, l, slog.New(slog.NewTextHandler(&said, nil))}.run(ctx) })
	const lines = 40000
	for i := range lines {
		if i == lines*3/4 {
			clock.Store(int64(time.Minute)) // the rest of the flood finds a full burst
		}
		fmt.Fprintf(module, "line %d\n", i)
	}
	seen := make(chan struct{})
	collecting.Go(func() {
		for { // the first of these may be part of the flood
			select {
			case <-seen:
				return
			default:
				clock.Add(int64(time.Second))
				fmt.Fprintln(module, "end")
			}
		}
	})
	in, out := io.Pipe()
	go func() { out.CloseWithError(l.copy(ctx, LogQuery{Tail: -1, Follow: true}, out)) }()
	for follow := bufio.NewScanner(in); follow.Scan() && !strings.HasSuffix(follow.Text(), " end"); {
	}
	close(seen)
	go func() { _, _ = io.Copy(io.Discard, in) }()
	cancel()
	collecting.Wait()
	if err := from.close(); err != nil {
		t.Fatal(err)
	}
	next, missing := 0, 0
	for line := range strings.Lines(all(t, l, LogQuery{Tail: -1})) {
		_, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var n, size int
		if _, err := fmt.Sscanf(what, "--- %d lines (%d bytes) dropped:", &n, &size); err == nil {
			next += n
			missing += n
			continue
		}
		if what == "end" {
			break
		}
		if what != fmt.Sprintf("line %d", next) {
			t.Fatalf("got %q, want line %d", what, next)
		}
		next++
	}
	if lost, _ := l.missing(); missing == 0 || lost < uint64(missing) {
		t.Errorf("got %d lines noted as missing and %d counted, want some and the same", missing, lost)
	}
	if strings.Count(said.String(), "lines are dropped") == 0 {
		t.Errorf("the operator was told: %q", said.String())
	}
}

func TestLastWordsAreCollected(t *testing.T) {
	t.Parallel()
	path, module := fifoOf(t)
	l := testLog(t, 8<<20)
	fmt.Fprint(module, "last words\n")
	collectAll(t, path, l)
	if got := text(t, l); got != "last words\n" {
		t.Errorf("got %q", got)
	}
}

func TestDiskThatIsFullStopsNoModule(t *testing.T) {
	t.Parallel()
	path, module := fifoOf(t)
	l := testLog(t, 8<<20)
	if err := os.WriteFile(l.dir, nil, 0o600); err != nil { // where the directory would be
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	from := openSource(t, path)
	var collecting sync.WaitGroup
	collecting.Go(func() { collector{Stdout, from, l, slog.New(slog.DiscardHandler)}.run(ctx) })
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
	<-changed
	cancel()
	collecting.Wait()
	if err := from.close(); err != nil {
		t.Fatal(err)
	}
	got := text(t, l)
	if !strings.Contains(got, " lines (") || !strings.Contains(got, " dropped: ") {
		t.Errorf("got %.300q", got)
	}
}

func FuzzSegment(f *testing.F) {
	f.Add([]byte("SL"))
	f.Add(append(piece{stream: Stderr, size: 4, at: noon}.append(nil), "a\nb\n"...))
	f.Add(piece{stream: Stdout, dropped: true, lines: 3, bytes: 9, at: noon}.append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l := testLog(t, 8<<20)
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.name(1), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		l = reopen(t, l)
		_ = all(t, l, LogQuery{Tail: -1})
		if p, err := parsePiece(raw); err == nil && !bytes.Equal(p.append(nil), raw[:pieceSize]) {
			t.Errorf("printed back as %x, want %x", p.append(nil), raw[:pieceSize])
		}
		write(t, l, "\nthe end\n")
		out := Stdout // of the other there may be a line that was begun
		if got := all(t, l, LogQuery{Tail: 1, Stream: &out}); got != stamp+"the end\n" {
			t.Errorf("what is written after a damaged segment: got %q", got)
		}
	})
}
