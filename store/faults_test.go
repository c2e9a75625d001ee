package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faulty is a disk of which one kind of operation on some files fails while it is
// armed.
type faulty struct {
	op    string
	files string // the name of a file or folder contains it

	mu   sync.Mutex
	err  error // nil: it is well
	hits []string
}

func (f *faulty) arm(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// met returns the files whose operations failed.
func (f *faulty) met() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.hits)
}

// at is an operation on path.
func (f *faulty) at(op, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil || op != f.op || !strings.Contains(path, f.files) {
		return nil
	}
	f.hits = append(f.hits, path)
	return &fs.PathError{Op: op, Path: path, Err: f.err}
}

func (f *faulty) open(path string, flag int) (file, error) {
	if flag&os.O_CREATE != 0 {
		if err := f.at("create", path); err != nil {
			return nil, err
		}
	}
	got, err := realMedium{}.open(path, flag)
	return faultyFile{file: got, path: path, f: f}, err
}

func (f *faulty) rename(from, to string) error {
	return cmpOr(f.at("rename", to), func() error { return realMedium{}.rename(from, to) })
}

func (f *faulty) remove(path string) error {
	return cmpOr(f.at("remove", path), func() error { return realMedium{}.remove(path) })
}

func (f *faulty) syncDir(path string) error {
	return cmpOr(f.at("syncDir", path), func() error { return realMedium{}.syncDir(path) })
}

func cmpOr(err error, do func() error) error {
	if err != nil {
		return err
	}
	return do()
}

type faultyFile struct {
	file
	path string
	f    *faulty
}

func (f faultyFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.f.at("write", f.path); err != nil {
		n, _ := f.file.WriteAt(b[:len(b)/2], at) // a part of it is there
		return n, err
	}
	return f.file.WriteAt(b, at)
}

func (f faultyFile) flush() error {
	return cmpOr(f.f.at("flush", f.path), f.file.flush)
}

// publisher publishes numbered messages of 2 KiB to x, which nobody reads, and to
// y, which is drained, and knows which were acknowledged.
type publisher struct {
	s     *Store
	next  int
	acked []string
	fails []error
}

func (p *publisher) publish(t *testing.T) error {
	t.Helper()
	body := fmt.Sprintf("%05d%s", p.next, strings.Repeat("f", 2000))
	p.next++
	err := p.s.Queue().Append(t.Context(), Record{Body: []byte(body), Entries: []Entry{{Sink: "x"}, {Sink: "y"}}})
	if err == nil {
		p.acked = append(p.acked, body[:5])
	} else {
		p.fails = append(p.fails, err)
	}
	return err
}

// drainOne empties y, and one time in so many x: segments go.
func (p *publisher) drainOne(t *testing.T, sink string) {
	t.Helper()
	items, _, err := p.s.Queue().Peek(sink, Cursor{}, 64, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.s.Queue().Ack(sink, items...); err != nil {
		t.Fatal(err)
	}
}

// A fault at each named operation: publishes are refused or stored, never both,
// the error names the file, what fails is left for another file, everything goes
// on when it is over, and after a restart nothing that was acknowledged is
// missing.
func TestAFaultAtAnyOperation(t *testing.T) {
	t.Parallel()
	points := map[string]struct {
		op, files string
		refused   string // publishes are: yes (before long), no, or if another journal is needed
	}{
		"a commit is written":                        {"write", ".journal", "yes"},
		"a commit is flushed":                        {"flush", ".journal", "yes"},
		"a journal is made":                          {"create", ".journal.new", "if"},
		"a journal is filled":                        {"write", ".journal.new", "if"},
		"a new journal is flushed":                   {"flush", ".journal.new", "if"},
		"a new journal gets its name":                {"rename", ".journal", "if"},
		"the folder of journals is flushed":          {"syncDir", "/journal", "if"},
		"a segment is made":                          {"create", "/seg/", "yes"},
		"a segment is written":                       {"write", "/seg/", "yes"},
		"a segment is flushed":                       {"flush", "/seg/", "yes"},
		"a segment gets its name":                    {"rename", "/seg/", "yes"},
		"the folder of segments is flushed":          {"syncDir", "/seg", "yes"},
		"a segment that nobody needs is removed":     {"remove", "/seg/", "no"},
		"a journal that is not wanted is removed":    {"remove", ".journal", "no"},
		"a file that was not finished is taken away": {"remove", newSuffix, "no"},
	}
	kinds := map[string]struct{ errno, named error }{
		"EIO": {syscall.EIO, syscall.EIO}, "full": {syscall.ENOSPC, ErrFull}, "read-only": {syscall.EROFS, ErrReadOnly},
	}
	for name, point := range points {
		for kind, k := range kinds {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				var book bytes.Buffer
				m := &faulty{op: point.op, files: point.files}
				cfg := crashConfig(filepath.Join(fastDir(t), "store"))
				cfg.Logger = slog.New(slog.NewTextHandler(&lockedWriter{w: &book}, nil))
				s, stop := startOn(t, cfg, m)
				p := &publisher{s: s}
				for range 120 { // several segments
					if err := p.publish(t); err != nil {
						t.Fatal(err)
					}
				}
				m.arm(k.errno)
				for n := 0; n < 250 && len(p.fails) < 3; n++ {
					p.publish(t) //nolint:errcheck // it is noted
					if n%40 == 0 {
						p.drainOne(t, "y")
					}
				}
				if got := len(p.fails) > 0; got && point.refused == "no" || !got && point.refused == "yes" {
					t.Errorf("publishes are refused: got %t (%v), want %s", got, p.fails, point.refused)
				}
				for _, err := range p.fails {
					if !errors.Is(err, k.named) || strings.Contains(err.Error(), "\n") {
						t.Errorf("got %v, want %v and the file", err, k.named)
					}
					if !slices.ContainsFunc(m.met(), func(path string) bool { return strings.Contains(err.Error(), path) }) {
						t.Errorf("got %v, want it to name one of %q", err, m.met())
					}
				}
				m.arm(nil)
				for deadline := time.Now().Add(20 * time.Second); p.publish(t) != nil; <-time.After(20 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("when it is over publishes are still refused: %v", p.fails[len(p.fails)-1])
					}
				}
				for range 120 {
					if err := p.publish(t); err != nil {
						t.Errorf("when it is over: %v", err)
					}
				}
				stop()
				p.check(t, cfg)
			})
		}
	}
}

// check opens the store again: what was acknowledged is there, in order.
func (p *publisher) check(t *testing.T, cfg Config) {
	t.Helper()
	s, stop := start(t, cfg)
	got := drain(t, s, "x")
	for i := range got {
		got[i] = got[i][:5]
	}
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Error("messages came out of order, or twice")
	}
	for _, body := range p.acked {
		if _, ok := slices.BinarySearch(got, body); !ok {
			t.Errorf("message %s was acknowledged and is lost", body)
		}
	}
	if u := s.Usage(); u.DamagedRecords > 0 || u.Recovered {
		t.Errorf("got %+v, want nothing counted as lost", u)
	}
	drain(t, s, "y")
	works(t, s)
	stop()
}

func startOn(t *testing.T, cfg Config, m medium) (s *Store, stop func()) {
	t.Helper()
	s, err := open(cfg, m)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, s, minSegment)
}

// lockedWriter is for those who write at the same time.
type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// state.db that takes nothing: documents are refused until a start looks afresh,
// messages are stored, and what is known of lanes is in journals. Nothing is lost,
// and nothing is taken for lost.
func TestAFaultOfStateDB(t *testing.T) {
	t.Parallel()
	cfg := crashConfig(filepath.Join(fastDir(t), "store"))
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.queue.tail.segmentBytes = minSegment
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	p := &publisher{s: s}
	for range 60 {
		if err := p.publish(t); err != nil {
			t.Fatal(err)
		}
	}
	mend := misdirect(t, int(s.state.file.Fd()), s.dir.state(), os.O_RDONLY)
	if err := s.Docs().Put(t.Context(), "k", []byte("v")); err == nil || !strings.Contains(err.Error(), "state.db") {
		t.Errorf("a document: got %v, want it refused with the file's name", err)
	}
	for n := range 400 {
		if err := p.publish(t); err != nil {
			t.Fatal(err)
		}
		if n%40 == 0 {
			p.drainOne(t, "y")
		}
	}
	mend()
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "state.db") {
		t.Errorf("close: got %v, want what is wrong", err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "state.db") {
		t.Errorf("run: got %v, want what is wrong", err)
	}
	p.check(t, cfg)
}

// misdirect lets a descriptor lead to another file until mend is called.
func misdirect(t *testing.T, fd int, path string, flag int) (mend func()) {
	t.Helper()
	kept, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(path, flag, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Dup3(int(other.Fd()), fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(unix.Dup3(kept, fd, unix.O_CLOEXEC), unix.Close(kept)); err != nil {
			t.Fatal(err)
		}
	}
}
