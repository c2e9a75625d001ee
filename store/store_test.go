package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func TestASecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	cfg := crashConfig(t.TempDir())
	s, stop := start(t, cfg)
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	works(t, s)
	stop()
	_, stop = start(t, cfg)
	stop()
}

func TestNobodyElseReadsTheFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	s, stop := start(t, crashConfig(dir))
	works(t, s)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: got mode %o, want nothing for others", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	stop()
}

// reformat sets the format version that state.db claims.
func reformat(t *testing.T, dir string, version uint32) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "state.db"), fileMode, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyFormat, sealed(keyFormat, binary.BigEndian.AppendUint32(nil, version)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestAnOlderProgramLeavesANewerStoreAlone(t *testing.T) {
	t.Parallel()
	cfg := crashConfig(t.TempDir())
	s, stop := start(t, cfg)
	works(t, s)
	stop()
	reformat(t, cfg.Dir, formatVersion+1)
	before := takeImage(t, cfg.Dir)
	_, err := Open(cfg)
	if !errors.Is(err, ErrNewer) {
		t.Fatalf("got %v, want ErrNewer", err)
	}
	for _, want := range []string{"state.db", "format 4", "up to 3", "install"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to say %q", err, want)
		}
	}
	if after := takeImage(t, cfg.Dir); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("files were changed")
	}
	reformat(t, cfg.Dir, formatVersion)
	s, stop = start(t, cfg)
	works(t, s)
	stop()
}

func TestALargeStateOfWhichMostIsFreeIsCompacted(t *testing.T) {
	t.Parallel()
	cfg := crashConfig(t.TempDir())
	s, stop := start(t, cfg)
	for i := range 12 {
		if err := s.Docs().Put(t.Context(), fmt.Sprint(i), make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 11 {
		if err := s.Docs().Put(t.Context(), fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Queue().Append(t.Context(), Record{Body: []byte("m"), Entries: []Entry{{Sink: "q"}}}); err != nil {
		t.Fatal(err)
	}
	stop()
	s, stop = start(t, cfg)
	info, err := os.Stat(s.dir.state())
	if err != nil || info.Size() > 4<<20 {
		t.Errorf("got %d bytes, %v, want a document of 1 MiB and little else", info.Size(), err)
	}
	if doc, err := s.Docs().Get("11"); len(doc) != 1<<20 || err != nil {
		t.Errorf("got %d bytes, %v, want the document that was left", len(doc), err)
	}
	if got := drain(t, s, "q"); !slices.Equal(got, []string{"m"}) {
		t.Errorf("got %q, want the message", got)
	}
	works(t, s)
	stop()
}

// Field reports Azure/iotedge#6965 and kubeedge/kubeedge#3527: memory does not
// grow with what is queued.
func TestABacklogIsNotInMemory(t *testing.T) { //nolint:paralleltest // it measures the heap of the process
	if testing.Short() {
		t.Skip("SKIPPED: -short")
	}
	s, stop := startWith(t, crashConfig(t.TempDir()), 512<<10)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	body := make([]byte, 200)
	recs := make([]Record, 500)
	for i := range recs {
		recs[i] = Record{Body: body, Entries: []Entry{{Sink: fmt.Sprint("sink/", i%10), Priority: uint8(i % 3)}}}
	}
	appendAll := func(n int) {
		for range n {
			if err := s.Queue().Append(t.Context(), recs...); err != nil {
				t.Fatal(err)
			}
		}
	}
	appendAll(20)
	before := heap()
	appendAll(400)
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("got %d bytes more on the heap for 200000 messages, want less than 4 MiB", grown)
	}
	if n := s.queue.ledger.footprint(); n > 40*s.Usage().Segments {
		t.Errorf("got %d entries in memory for 210000 messages, want them to follow lanes and segments", n)
	}
	stop()
}

// Boards have 32 bits: whatever is queued, few segments are mapped.
func TestFewSegmentsAreMapped(t *testing.T) {
	t.Parallel()
	s, stop := start(t, crashConfig(t.TempDir()))
	body := make([]byte, 50_000)
	for i := range 100 {
		rec := Record{Body: body, Entries: []Entry{{Sink: fmt.Sprint("sink/", i%7)}}}
		if err := s.Queue().Append(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if _, _, err := s.Queue().Peek(fmt.Sprint("sink/", i*5%7), Cursor{}, 100, 0); err != nil {
				t.Fatal(err)
			}
		}
		if got := mapped(s); got > maxMapped {
			t.Fatalf("after %d messages in %d segments: got %d mapped, want %d", i, s.Usage().Segments, got, maxMapped)
		}
	}
	if got := s.Usage().Segments; got < 3*maxMapped {
		t.Errorf("got %d segments, want more for this test to say something", got)
	}
	stop()
}

func mapped(s *Store) int {
	s.queue.shelf.mu.Lock()
	defer s.queue.shelf.mu.Unlock()
	return len(s.queue.shelf.open)
}

// footprint counts what the ledger keeps in memory.
func (g *ledger) footprint() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sinks {
		for i := range s.lanes {
			n += len(s.lanes[i].parts) + len(s.lanes[i].ahead)
		}
	}
	return n + len(g.segments)
}

var update = flag.Bool("update", false, "write the golden store of this format anew")

// golden is the store of this format; those of older ones are beside it.
const golden = "testdata/v3.tar.gz"

// makeGolden writes a store with everything that is on disk in format 3: two
// sealed segments and a journal as a power cut leaves it.
func makeGolden(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	at := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	cfg := crashConfig(dir)
	cfg.Now = func() time.Time { return at }
	for round := range 3 {
		s, stop := start(t, cfg)
		for i := range 20 {
			err := s.Queue().Append(t.Context(), Record{Body: fmt.Appendf(nil, "golden %d.%02d", round, i), Entries: []Entry{
				{Sink: "upstream/meter", Priority: Lowest}, {Sink: "modules/filter/inputs/in", TTL: time.Hour},
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Docs().Put(t.Context(), "twin/meter", fmt.Appendf(nil, `{"round":%d}`, round)); err != nil {
			t.Fatal(err)
		}
		items, _, err := s.Queue().Peek("upstream/meter", Cursor{}, 8, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Queue().Ack("upstream/meter", items...); err != nil {
			t.Fatal(err)
		}
		if round < 2 {
			sealNow(t, s)
		} else {
			if err := s.queue.note(); err != nil { // into the journal
				t.Fatal(err)
			}
			pack(t, takeImage(t, dir))
		}
		stop()
	}
}

func pack(t *testing.T, m image) {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: fileMode, Size: int64(len(m[name])), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close(), os.MkdirAll("testdata", 0o755), os.WriteFile(golden, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, name string) image {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatalf("the golden store is missing: %v", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	m := image{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return m
		}
		if err != nil {
			t.Fatal(err)
		}
		if m[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// A store of every released format opens, and what is in it is there. A change
// of the format gets a new number, a migration and a new golden store.
func TestTheGoldenStoreOfEveryFormatOpens(t *testing.T) {
	t.Parallel()
	if *update {
		makeGolden(t)
	}
	for format := 1; format <= formatVersion; format++ {
		t.Run(fmt.Sprint("format ", format), func(t *testing.T) {
			t.Parallel()
			checkGolden(t, fmt.Sprintf("testdata/v%d.tar.gz", format))
		})
	}
}

func checkGolden(t *testing.T, name string) {
	t.Helper()
	cfg := crashConfig(t.TempDir())
	unpack(t, name).write(t, cfg.Dir)
	s, stop := start(t, cfg)
	if got, err := s.Docs().Get("twin/meter"); string(got) != `{"round":2}` || err != nil {
		t.Errorf("document: got %q, %v", got, err)
	}
	var upstream, input []string
	for i := range 60 {
		body := fmt.Sprintf("golden %d.%02d", i/20, i%20)
		input = append(input, body)
		if i >= 24 {
			upstream = append(upstream, body)
		}
	}
	items, _, err := s.Queue().Peek("upstream/meter", Cursor{}, 1, 0)
	if err != nil || len(items) != 1 || items[0].Seq != 25 || items[0].Priority != Lowest ||
		!items[0].Stored.Equal(time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v, %v, want record 25 of August 2026", items, err)
	}
	stats := s.Queue().Stats()
	if len(stats) != 2 || stats[0].Messages != 60 || stats[1].Messages != 36 {
		t.Errorf("got %+v, want 60 and 36 messages", stats)
	}
	if got := drain(t, s, "upstream/meter"); !slices.Equal(got, upstream) {
		t.Errorf("upstream: got %q, want %q", got, upstream)
	}
	if got := drain(t, s, "modules/filter/inputs/in"); !slices.Equal(got, input) {
		t.Errorf("input: got %q, want %q", got, input)
	}
	if u := s.Usage(); u.DamagedFiles+u.DamagedRecords+u.DamagedDocuments > 0 || u.Recovered {
		t.Errorf("got %+v, want no damage", u)
	}
	works(t, s)
	stop()
}
