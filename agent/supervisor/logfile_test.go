package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	if err := l.copy(t.Context(), &q, nil, &out); err != nil {
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
