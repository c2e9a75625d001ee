package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/store"
	"github.com/sandpiper-edge/sandpiper/store/storetest"
)

// logBook keeps what a store logged.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBook) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// fill appends until the store refuses, and returns how many it took.
func fill(t *testing.T, s *store.Store, from int) (n int) {
	t.Helper()
	for ; ; n++ {
		body := fmt.Sprintf("%08d%s", from+n, strings.Repeat("f", 20_000))
		err := s.Queue().Append(t.Context(), record(body, to("x", 1)))
		if errors.Is(err, store.ErrFull) {
			return n
		}
		if err != nil {
			t.Fatalf("message %d: got %v, want ErrFull when there is no room", n, err)
		}
	}
}

// deliver takes n messages in order, from number first on.
func deliver(t *testing.T, s *store.Store, first, n int) {
	t.Helper()
	for i := 0; i < n; {
		items, _ := mustPeek(t, s, "x", store.Cursor{}, min(50, n-i))
		if len(items) == 0 {
			t.Fatalf("got %d messages, want %d", i, n)
		}
		for _, item := range items {
			if got, want := string(item.Body[:8]), fmt.Sprintf("%08d", first+i); got != want {
				t.Fatalf("got message %s, want %s", got, want)
			}
			i++
		}
		if err := s.Queue().Ack("x", items...); err != nil {
			t.Fatal(err)
		}
	}
}

// Field reports Azure/iotedge#835 and #6164: the queue cannot outgrow its share,
// says so to the producer, and takes messages again when some were delivered.
func TestAFullQueueRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	var book logBook
	cfg := store.Config{Dir: t.TempDir(), MaxBytes: 16 << 20, Logger: book.logger()}
	s := storetest.Open(t, cfg)
	n := fill(t, s, 0)
	if n*20_000 < 16<<20*3/4 {
		t.Errorf("got %d messages of 20 kB in 16 MiB, want three quarters of it used", n)
	}
	if u := s.Usage(); !u.Full || u.Held > u.Limit || u.Limit != 16<<20 {
		t.Errorf("got %+v, want it full and within its limit", u)
	}
	if err := s.Docs().Put(t.Context(), "k", []byte("v")); err != nil {
		t.Errorf("documents in a full queue: got %v, want nil", err)
	}
	more := 0
	for done := 0; done < n; done += n / 5 { // several rounds of full and not full
		deliver(t, s, done, n/5)
		got := fill(t, s, n+more)
		for soon := time.Now().Add(30 * time.Second); got == 0 && time.Now().Before(soon); { // what was delivered is unlinked by another goroutine
			got = fill(t, s, n+more)
		}
		if got == 0 {
			t.Errorf("after %d of %d messages were delivered: got nothing accepted", done+n/5, n)
		}
		more += got
		if u := s.Usage(); u.Held > u.Limit {
			t.Errorf("got %+v, want it within its limit", u)
		}
	}
	left := len(storetest.Bodies(t, s, "x"))
	deliver(t, s, n+more-left, left)
	if book.count("queue is full") < 2 || book.count("queue is full") > 8 ||
		book.count("queue takes messages again") < 2 {
		t.Errorf("got the log\n%s\nwant a line each time it became full, and no more", book.b.String())
	}
}

// TestAFullQueueThatDrainsWhileNobodyWritesIsFullNoMore: what is said of it is what the next message would meet.
func TestAFullQueueThatDrainsWhileNobodyWritesIsFullNoMore(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]int{"to its end": 0, "to one message": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := storetest.Open(t, store.Config{Dir: t.TempDir(), MaxBytes: 16 << 20})
			n := fill(t, s, 0)
			deliver(t, s, 0, n-leave)
			deadline := time.Now().Add(30 * time.Second)
			for s.Usage().Full { // what was delivered is unlinked by another goroutine
				if time.Now().After(deadline) {
					t.Fatalf("got %+v, want it not full", s.Usage())
				}
				runtime.Gosched()
			}
			if err := s.Queue().Append(t.Context(), record("next", to("x", 1))); err != nil {
				t.Errorf("the next message: got %v", err)
			}
		})
	}
}

// Field report Azure/iotedge#3981: storage comes back after messages are sent.
func TestTheDiskComesBack(t *testing.T) {
	t.Parallel()
	cfg := store.Config{Dir: t.TempDir(), MaxBytes: 32 << 20}
	s := storetest.Open(t, cfg)
	fill(t, s, 0)
	held := s.Usage()
	if held.Held < 24<<20 || held.Pending < 20<<20 {
		t.Fatalf("got %+v, want it nearly full", held)
	}
	if _, err := s.Queue().Purge(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	after := s.Usage()
	if after.Segments > 1 || after.Held > 3*2<<20 || after.Pending != 0 {
		t.Errorf("got %+v, want the journals and nothing else", after)
	}
	if got := diskUse(t, cfg.Dir); got > 8<<20 {
		t.Errorf("got %d bytes on disk, want no more than journals and state.db", got)
	}
	fill(t, s, 0)
}

// Messages out of time make room although nobody reads them.
func TestExpiredMessagesMakeRoom(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{MaxBytes: 8 << 20})
	body := bytes.Repeat([]byte("t"), 50_000)
	rec := store.Record{Body: body, Entries: []store.Entry{{Sink: "x", TTL: 1}}}
	for i := range 1000 { // six times what fits
		if err := s.Queue().Append(t.Context(), rec); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
}

func diskUse(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			return err
		}
		bytes += st.Blocks * 512
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// smallDisk mounts a file system of its own, which needs root.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: not root, so no small file system can be mounted to fill it")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("SKIPPED: a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// Field reports Azure/iotedge#835 and balena-supervisor#674: somebody else fills
// the disk. Producers are refused, what is stored is delivered, and everything
// goes on when there is space again.
func TestADiskFilledByOthers(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "24m")
	cfg := store.Config{Dir: filepath.Join(disk, "store"), MaxBytes: 16 << 20, MinFree: 1}
	s, stop := storetest.Start(t, cfg)
	for i := range 100 {
		mustAppend(t, s, record(fmt.Sprintf("%08d%s", i, strings.Repeat("f", 20_000)), to("x", 1)))
	}
	hog := filepath.Join(disk, "hog")
	if err := os.WriteFile(hog, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: got %v, want ENOSPC", err)
	}
	taken := 100 + fill(t, s, 100) // the room that was prepared
	if got := s.Usage(); !got.Full || got.Free > 1<<20 {
		t.Errorf("got %+v, want it full", got)
	}
	if err := s.Docs().Put(t.Context(), "k", []byte("v")); err != nil {
		t.Errorf("a small document on a full disk: got %v, want that the reserve takes it", err)
	}
	deliver(t, s, 0, taken/2)
	stop()

	s, stop = storetest.Start(t, cfg) // it opens on a full disk
	if got, err := s.Docs().Get("k"); string(got) != "v" {
		t.Errorf("document: got %q, %v, want v", got, err)
	}
	deliver(t, s, taken/2, taken-taken/2)
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, record(fmt.Sprintf("%08d", taken), to("x", 1)))
	deliver(t, s, taken, 1)
	stop()
	storetest.Check(t, cfg)
}

// A partition that is nearly full from the start is left its minimum.
func TestTheMinimumStaysFree(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "24m")
	s, stop := storetest.Start(t, store.Config{Dir: filepath.Join(disk, "store"), MaxBytes: 23 << 20, MinFree: 8 << 20})
	fill(t, s, 0)
	if got := s.Usage(); got.Free < 8<<20 || got.Free > 11<<20 {
		t.Errorf("got %+v, want 8 MiB left free and not much more", got)
	}
	stop()
}

func TestTheDefaultShareIsAQuarterOfThePartition(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "48m")
	s, err := store.Open(store.Config{Dir: filepath.Join(disk, "store")})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Usage().Limit; got != 12<<20 {
		t.Errorf("got a limit of %d bytes on 48 MiB, want 12 MiB", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A file system that turned read-only, as a card does at the end of its life.
func TestAReadOnlyDiskIsAnErrorAndNoLoss(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "48m")
	cfg := store.Config{Dir: filepath.Join(disk, "store"), MinFree: 1}
	s, stop := storetest.Start(t, cfg)
	for i := range 10 {
		mustAppend(t, s, record(fmt.Sprintf("%08d", i), to("x", 1)))
	}
	stop()
	if err := syscall.Mount("none", disk, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("SKIPPED: the file system cannot be made read-only: %v", err)
	}
	if _, err := store.Open(cfg); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("got %v, want ErrReadOnly", err)
	}
	if err := syscall.Mount("none", disk, "tmpfs", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	s, stop = storetest.Start(t, cfg)
	deliver(t, s, 0, 10)
	stop()
}

// Field reports Azure/iotedge#5095 and #3818: a store that cannot be opened is
// an error, never a queue in memory.
func TestAStoreThatCannotBeOpenedIsAnError(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("not a folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]store.Config{
		"no folder is given":            {},
		"a file is in the way":          {Dir: file},
		"below a file":                  {Dir: filepath.Join(file, "store")},
		"an impossible limit":           {Dir: t.TempDir(), MaxBytes: 1},
		"segments larger than the rest": {Dir: t.TempDir(), MaxBytes: 8 << 20, SegmentBytes: 8 << 20},
		"segments too small":            {Dir: t.TempDir(), SegmentBytes: 1000},
	}
	for name, cfg := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := store.Open(cfg)
			if err == nil || s != nil {
				t.Fatalf("got %v, %v, want no store and an error", s, err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("got an error of several lines: %v", err)
			}
		})
	}
}
