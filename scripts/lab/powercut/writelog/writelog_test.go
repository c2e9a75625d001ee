//go:build amd64 || arm64

package writelog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asActor makes this test binary a process that does one of acts to a folder.
const asActor = "SANDPIPER_WRITELOG_ACT"

func TestMain(m *testing.M) {
	name := os.Getenv(asActor)
	if name == "" {
		os.Exit(m.Run())
	}
	var err error
	if strings.HasPrefix(name, "unsynced") {
		err = IgnoreFlushes()
	}
	if err = errors.Join(err, Trace()); err == nil {
		err = acts[name](os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, name, err)
		os.Exit(1)
	}
}

// acts by name. Each leaves the folder as its test expects it.
var acts = map[string]func(dir string) error{
	"flushed": func(dir string) error { return change(dir, true) },
	// the same by a process whose flushes do nothing
	"unsynced": func(dir string) error { return change(dir, true) },
	"renamed": func(dir string) error {
		err := os.WriteFile(dir+"/new", bytes.Repeat([]byte("n"), 3000), 0o600)
		return errors.Join(err, flush(dir+"/new"), os.Rename(dir+"/new", dir+"/old"), flush(dir), say("renamed"), os.Remove(dir+"/old"), say("end"))
	},
	"synchronous": func(dir string) error {
		f, err := os.OpenFile(dir+"/old", os.O_WRONLY|unix.O_DSYNC, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte("safe"), 100)
		return errors.Join(err, say("written"), f.Close())
	},
	"every way": func(dir string) error {
		if err := os.MkdirAll(dir+"/a/b", 0o700); err != nil {
			return err
		}
		f, err := os.OpenFile(dir+"/a/b/file", os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString("one")
		_, err2 := unix.Writev(int(f.Fd()), [][]byte{[]byte("two"), []byte("three")})
		err = errors.Join(err, err2, f.Close(), os.Truncate(dir+"/a/b/file", 9), os.Link(dir+"/a/b/file", dir+"/second"))
		if f, err2 = os.OpenFile(dir+"/old", os.O_RDWR, 0); err2 != nil {
			return err2
		}
		_, err2 = f.Seek(5000, 0)
		_, err3 := f.WriteString("far")
		err = errors.Join(err, err2, err3, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 100, 200), f.Truncate(5001))
		return errors.Join(err, f.Close(), os.Rename(dir+"/second", dir+"/a/third"), os.Remove(dir+"/a/b/file"), os.Remove(dir+"/a/b"))
	},
	"mapped": func(dir string) error {
		f, err := os.OpenFile(dir+"/old", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	},
}

// change makes one flushed write, says so, and one that is not flushed.
func change(dir string, safe bool) error {
	f, err := os.OpenFile(dir+"/old", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(bytes.Repeat([]byte("1"), 4096), 0)
	if safe {
		err = errors.Join(err, f.Sync())
	}
	err = errors.Join(err, say("flushed"))
	_, err2 := f.WriteAt(bytes.Repeat([]byte("2"), 4096), 4096)
	return errors.Join(err, err2, say("end"), f.Close())
}

func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func say(line string) error {
	_, err := fmt.Println(line)
	return err
}

// recorded is what an actor did to a folder with one file, "old", of 8192 zeros.
func recorded(t *testing.T, act string) (*Log, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/old", make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	log, err := Record(ctx, Config{Dir: dir, Command: []string{os.Args[0], dir}, Env: append(os.Environ(), asActor+"="+act)})
	if errors.Is(err, ErrNoTrace) {
		t.Skipf("SKIPPED: NOTHING IS RECORDED HERE: %v", err)
	}
	if err == nil {
		err = log.Compare(dir)
	}
	return log, err
}

func record(t *testing.T, act string) *Log {
	t.Helper()
	log, err := recorded(t, act)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// after is the first point at which a line was said.
func after(t *testing.T, log *Log, line string) int {
	t.Helper()
	for point := range log.Length + 1 {
		if slices.Contains(log.Said(point), line) {
			return point
		}
	}
	t.Fatalf("nobody said %q in %q", line, log.Said(log.Length))
	return 0
}

// cuts are many trees of honest disks, from a point on.
func cuts(log *Log, point int) (trees []Tree) {
	for ; point <= log.Length; point++ {
		for seed := range uint64(20) {
			trees = append(trees, log.Cut(point, Kept, seed), log.Cut(point, Dropped, seed), log.Cut(point, Reordered, seed))
		}
	}
	return trees
}

func TestFlushedDataSurvivesEveryCutAndOtherDataMayGo(t *testing.T) {
	t.Parallel()
	log := record(t, "flushed")
	there, gone, torn := 0, 0, 0
	for _, tree := range cuts(log, after(t, log, "flushed")) {
		data := tree["old"].Data
		if !bytes.Equal(data[:4096], bytes.Repeat([]byte("1"), 4096)) {
			t.Fatalf("flushed data is lost: %.20q", data)
		}
		switch bytes.Count(data[4096:], []byte("2")) {
		case 0:
			gone++
		case 4096:
			there++
		default:
			torn++
		}
	}
	if there == 0 || gone == 0 || torn == 0 {
		t.Errorf("got %d cuts with the data, %d without, %d torn, want some of each", there, gone, torn)
	}
}

func TestADiskThatLiesLosesWhatWasFlushed(t *testing.T) {
	t.Parallel()
	log := record(t, "flushed")
	lost := false
	for seed := range uint64(50) {
		lost = lost || !bytes.Equal(log.Cut(log.Length, Lying, seed)["old"].Data[:4096], bytes.Repeat([]byte("1"), 4096))
	}
	if !lost {
		t.Error("got the flushed data after every lie")
	}
}

func TestAProcessWhoseFlushesDoNothingIsSeenWithoutFlushes(t *testing.T) {
	t.Parallel()
	log := record(t, "unsynced")
	if n := log.Count(Flush); n != 0 {
		t.Errorf("got %d flushes, want none", n)
	}
	if got := log.Cut(log.Length, Dropped, 1)["old"].Data; !bytes.Equal(got, make([]byte, 8192)) {
		t.Errorf("got %.20q, want what was there at the beginning", got)
	}
}

func TestANameIsSafeWhenItsFolderIsFlushed(t *testing.T) {
	t.Parallel()
	log := record(t, "renamed")
	renamed := after(t, log, "renamed")
	seen := map[int]bool{} // bytes of old
	for _, tree := range cuts(log, 0) {
		seen[len(tree["old"].Data)] = true
	}
	for _, want := range []int{8192, 3000, 0} {
		if !seen[want] {
			t.Errorf("no cut left old with %d bytes; there are %v", want, seen)
		}
	}
	for _, tree := range cuts(log, renamed) {
		if n, there := tree["old"]; there && len(n.Data) != 3000 {
			t.Fatalf("got old with %d bytes after its folder was flushed, want 3000", len(n.Data))
		}
		if _, there := tree["new"]; there {
			t.Fatal("the old name is still there after its folder was flushed")
		}
	}
}

func TestAWriteOfASynchronousFileIsSafeAtOnce(t *testing.T) {
	t.Parallel()
	log := record(t, "synchronous")
	for _, tree := range cuts(log, after(t, log, "written")) {
		if got := tree["old"].Data[100:104]; string(got) != "safe" {
			t.Fatalf("got %q, want the data", got)
		}
	}
}

func TestEveryWayToChangeAFolderIsSeen(t *testing.T) {
	t.Parallel()
	log := record(t, "every way") // compares the log with the folder
	tree := log.Cut(log.Length, Kept, 3)
	if names := slices.Sorted(maps.Keys(tree)); !reflect.DeepEqual(names, []string{".", "a", "a/third", "old"}) {
		t.Errorf("got %v", names)
	}
	if got := string(tree["a/third"].Data); got != "onetwothr" {
		t.Errorf("got %q, want onetwothr", got)
	}
}

func TestAMappingThatCannotBeSeenEndsTheRecording(t *testing.T) {
	t.Parallel()
	if _, err := recorded(t, "mapped"); err == nil || !strings.Contains(err.Error(), "shared writable mapping") {
		t.Errorf("got %v, want an error about the mapping", err)
	}
}

func TestASeedRepeatsACutAlsoOfASavedLog(t *testing.T) {
	t.Parallel()
	log := record(t, "flushed")
	var file bytes.Buffer
	if err := log.Save(&file); err != nil {
		t.Fatal(err)
	}
	again, err := Load(&file)
	if err != nil {
		t.Fatal(err)
	}
	different := false
	for seed := range uint64(30) {
		one, two := log.Cut(log.Length, Reordered, seed), again.Cut(log.Length, Reordered, seed)
		if !reflect.DeepEqual(one, two) {
			t.Fatalf("seed %d makes two different cuts", seed)
		}
		different = different || !reflect.DeepEqual(one, log.Cut(log.Length, Reordered, seed+1))
	}
	if !different {
		t.Error("all seeds make the same cut")
	}
}

func TestATreeIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tree")
	want := Tree{".": {Mode: os.ModeDir | 0o700}, "a": {Mode: os.ModeDir | 0o700}, "a/b": {Mode: 0o600, Data: []byte("x")}}
	if err := want.Write(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadTree(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
