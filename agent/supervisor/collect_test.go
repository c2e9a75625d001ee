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
	go func() { out.CloseWithError(l.copy(ctx, &LogQuery{Tail: -1, Follow: true}, nil, out)) }()
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
	l.mu.Lock()
	changed := l.changed // before there is a place to write to, so that the first note there is not missed
	l.mu.Unlock()
	if err := os.Remove(l.dir); err != nil {
		t.Fatal(err)
	}
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
