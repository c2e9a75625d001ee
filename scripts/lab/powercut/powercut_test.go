//go:build amd64 || arm64

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/scripts/lab/powercut/writelog"
)

var (
	cuts = flag.Int("cuts", 20, "power cuts after each recording")
	seed = flag.Uint64("seed", 1, "of the cuts")
	keep = flag.String("keep", "", "folder for the recording of a cut that went wrong")
	from = flag.String("log", "", "a kept recording: make cut -cut of it again")
	one  = flag.Uint64("cut", 0, "the cut of -log to make")
	lies = flag.Bool("lies", false, "the cut of -log is one of a disk that lies")
)

// scene is a recording, with what was promised before it began.
type scene struct {
	log      *writelog.Log
	promised Ledger
}

// record lets the workload go on with a folder until it was promised a number of records.
func record(t *testing.T, base writelog.Tree, promised Ledger, records int, options ...string) *scene {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "live")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := base.Write(dir); err != nil {
		t.Fatal(err)
	}
	paper := filepath.Join(t.TempDir(), "ledger")
	f, err := os.Create(paper)
	if err != nil {
		t.Fatal(err)
	}
	promised.Print(f)
	f.Close()
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	log, err := writelog.Record(ctx, writelog.Config{
		Dir:     dir,
		Command: append(append([]string{os.Args[0], "work", "-trace"}, options...), dir, paper),
		Env:     append(os.Environ(), asPowercut+"=1"),
		Until: func(line string) bool {
			if strings.HasPrefix(line, "A ") {
				records--
			}
			return records <= 0 || strings.HasPrefix(line, "E ")
		},
	})
	if errors.Is(err, writelog.ErrNoTrace) {
		t.Skipf("SKIPPED: POWER CUTS ARE NOT TESTED HERE: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Compare(dir); err != nil {
		t.Fatalf("the recorder did not see everything: %v", err)
	}
	s := &scene{log: log, promised: promised}
	s.ledger(t, log.Length) // every line is one
	return s
}

// ledger is what was promised before a point.
func (s *scene) ledger(t *testing.T, point int) Ledger {
	t.Helper()
	l := s.promised.Copy()
	for _, line := range s.log.Said(point) {
		if err := l.Line(line); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// cut makes cut number n, and says what it was.
func (s *scene) cut(t *testing.T, n uint64, how func(*rand.Rand) writelog.How) (writelog.Tree, Ledger, string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(*seed, n))
	point, manner := rng.IntN(s.log.Length+1), how(rng)
	return s.log.Cut(point, manner, rng.Uint64()), s.ledger(t, point), fmt.Sprintf("seed %d, cut %d at point %d of %d, what was not flushed is %s", *seed, n, point, s.log.Length, manner)
}

func honest(rng *rand.Rand) writelog.How {
	return []writelog.How{writelog.Kept, writelog.Dropped, writelog.Reordered, writelog.Reordered}[rng.IntN(4)]
}

func lying(*rand.Rand) writelog.How { return writelog.Lying }

// check makes a cut and opens what it left.
func (s *scene) check(t *testing.T, j *judge, n uint64, how func(*rand.Rand) writelog.How, excused bool) (Verdict, string) {
	t.Helper()
	tree, ledger, what := s.cut(t, n, how)
	dir := filepath.Join(t.TempDir(), "cut")
	if err := tree.Write(dir); err != nil {
		t.Fatal(err)
	}
	v := j.ask(task{Dir: dir, Ledger: ledger, Lying: excused})
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	return v, what
}

// judge makes many cuts of a recording on an honest disk; none may lose anything.
func (s *scene) judge(t *testing.T, j *judge) {
	t.Helper()
	t.Logf("%d points: %d writes, %d flushes, %d names", s.log.Length, s.log.Count(writelog.Write), s.log.Count(writelog.Flush),
		s.log.Count(writelog.Link)+s.log.Count(writelog.Unlink)+s.log.Count(writelog.Rename))
	for n := range uint64(*cuts) {
		if v, what := s.check(t, j, n, honest, false); len(v.Lost)+len(v.Wrong) > 0 {
			t.Fatalf("%s:\n%s\n%s", what, strings.Join(append(v.Wrong, v.Lost...), "\n"), s.keep(t, n))
		}
	}
}

// keep saves a recording and says how its cut is made again.
func (s *scene) keep(t *testing.T, n uint64) string {
	t.Helper()
	if *keep == "" {
		return "run it with -args -keep FOLDER to keep a recording that goes wrong"
	}
	path := filepath.Join(*keep, fmt.Sprintf("powercut-%d-%d.log", *seed, n))
	f, err := os.Create(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	s.promised.Print(f)
	fmt.Fprintln(f)
	if err := s.log.Save(f); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("make it again: go test ./scripts/lab/powercut -run Again -args -log %s -seed %d -cut %d", path, *seed, n)
}

// Field reports etcd-io/bbolt#446, Azure/iotedge#2959: whatever a power cut leaves of what was not flushed, nothing that was
// acknowledged is lost; and the store that came through one cut comes through the next, also in the middle of its recovery.
func TestAPowerCutLosesNothingThatWasPromised(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	base, promised := writelog.Tree{}, Ledger{}
	for round, records := range []int{320, 40, 320} {
		s := record(t, base, promised, records)
		s.judge(t, j)
		if t.Failed() || t.Skipped() {
			return
		}
		base, promised, _ = s.cut(t, 1000+uint64(round), honest) // the next round begins with what a cut left
	}
}

// The control: a store that does not sync loses what it promised. A harness that does not see that sees nothing.
func TestAStoreThatDoesNotSyncIsCaught(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	s := record(t, writelog.Tree{}, Ledger{}, 100, "-nosync")
	if n := s.log.Count(writelog.Flush); n > 0 {
		t.Fatalf("got %d flushes of a process whose flushes do nothing", n)
	}
	caught := 0
	for n := range uint64(10) {
		if v, _ := s.check(t, j, n, honest, false); len(v.Lost)+len(v.Wrong) > 0 {
			caught++
		}
	}
	if caught == 0 {
		t.Error("no cut lost anything of a store that does not sync: the harness is blind")
	}
	t.Logf("%d of 10 cuts lost something", caught)
}

// The second control: a store that flushes its files and forgets their folders loses files that it just made.
func TestAStoreThatForgetsToFlushFoldersIsCaught(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	s := record(t, writelog.Tree{}, Ledger{}, 60)
	forgot := 0
	for i := range s.log.Ops {
		op := &s.log.Ops[i]
		if op.Kind == writelog.Flush && op.Object != writelog.Everything && s.log.Objects[op.Object].Mode.IsDir() {
			op.End = 0
			forgot++
		}
	}
	caught := 0
	for n := range uint64(10) {
		if v, _ := s.check(t, j, n, honest, false); len(v.Lost)+len(v.Wrong) > 0 {
			caught++
		}
	}
	if forgot == 0 || caught == 0 {
		t.Errorf("forgot %d flushes of folders, and %d of 10 cuts lost something: the harness is blind to names", forgot, caught)
	}
}

// Cheap cards say that they flushed and did not. That costs messages, which are counted, but never the process: the store
// opens, gives out only what was sent, and works on.
func TestADiskThatLiesAboutFlushesCostsMessagesOnly(t *testing.T) {
	t.Parallel()
	j := newJudge(t)
	s := record(t, writelog.Tree{}, Ledger{}, 200)
	lost := 0
	for n := range uint64(*cuts) {
		v, what := s.check(t, j, n, lying, true)
		if len(v.Wrong) > 0 {
			t.Fatalf("%s:\n%s\n%s", what, strings.Join(v.Wrong, "\n"), s.keep(t, n)+" -lies")
		}
		if len(v.Lost) > 0 {
			lost++
		}
	}
	if lost == 0 {
		t.Error("no lie cost anything: the test says nothing")
	}
	t.Logf("%d of %d lies cost something", lost, *cuts)
}

// A cut of a kept recording, made again: -args -log FILE -seed N -cut N.
func TestACutOfAKeptRecordingAgain(t *testing.T) {
	t.Parallel()
	if *from == "" {
		t.Skip("SKIPPED: no recording is named (-args -log FILE -seed N -cut N)")
	}
	raw, err := os.ReadFile(*from)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(raw), "\n\n")
	s := &scene{}
	if err := s.promised.Read(strings.NewReader(head + "\n")); err != nil {
		t.Fatal(err)
	}
	if s.log, err = writelog.Load(strings.NewReader(rest)); err != nil {
		t.Fatal(err)
	}
	how := honest
	if *lies {
		how = lying
	}
	v, what := s.check(t, newJudge(t), *one, how, *lies)
	t.Log(what)
	if len(v.Wrong) > 0 || len(v.Lost) > 0 && !*lies {
		t.Error(strings.Join(append(v.Wrong, v.Lost...), "\n"))
	}
}
