package container_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// execer is a sandbox whose program waits, for others to be run in it.
func execer(t *testing.T, id string) sandbox.Execer {
	t.Helper()
	s := spec(t, id)
	s.Args = []string{"/bin/bash", "-c", "echo ready; while :; do sleep 1000 & wait $!; done"}
	i := start(t, newRuntime(t), s)
	if got := i.line(); got != "ready" {
		t.Fatalf("got %q, want it ready", got)
	}
	e, _ := i.Instance.(sandbox.Execer)
	return e
}

// commands lists the processes of this host that were started with a word.
func commands(t *testing.T, word string) (pids []string) {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		raw, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "no such process") {
			t.Fatal(err)
		}
		for _, arg := range bytes.Split(raw, []byte{0}) {
			if string(arg) == word {
				pids = append(pids, filepath.Base(filepath.Dir(path)))
			}
		}
	}
	return pids
}

func TestACommandEndsThoughAChildHoldsItsOutput(t *testing.T) {
	t.Parallel()
	e := execer(t, "leaves-child")
	var out bytes.Buffer
	exit, err := e.Exec(t.Context(), sandbox.Command{Args: []string{"/bin/bash", "-c", "setsid sleep 1000 & echo one; echo two >&2; exit 4"}, Stdout: &out, Stderr: &out})
	if err != nil || exit.Code != 4 || out.String() != "one\ntwo\n" {
		t.Errorf("got %+v, %v, %q, want code 4 and both lines while the child lives", exit, err, out.String())
	}
}

// slow takes what it gets only after a while.
type slow struct {
	bytes.Buffer
	until <-chan time.Time
}

func (s *slow) Write(p []byte) (int, error) {
	if s.until != nil {
		<-s.until
		s.until = nil
	}
	return s.Buffer.Write(p)
}

func TestASlowReaderGetsAllOfACommandThatEndedLongAgo(t *testing.T) {
	t.Parallel()
	e := execer(t, "slow-reader")
	out := &slow{until: time.After(1500 * time.Millisecond)}
	const size = 60000 // a pipe holds it: the command is long gone when the reader goes on
	exit, err := e.Exec(t.Context(), sandbox.Command{Args: []string{"/bin/bash", "-c", `printf 'x%.0s' {1..60000}`}, Stdout: out})
	if err != nil || exit.Code != 0 || out.Len() != size {
		t.Errorf("got %+v, %v, %d bytes, want %d", exit, err, out.Len(), size)
	}
}

func TestTheEndOfACommandIsThatOfItsChildren(t *testing.T) {
	t.Parallel()
	e := execer(t, "children-too")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const word = "98765.4321"
	out := &firstLine{seen: cancel}
	_, err := e.Exec(ctx, sandbox.Command{Args: []string{"/bin/bash", "-c", "sleep " + word + " & echo ready; wait"}, Stdout: out})
	if err != nil {
		t.Fatal(err)
	}
	again, late := time.NewTicker(10*time.Millisecond), time.After(20*time.Second)
	defer again.Stop()
	for left := commands(t, word); len(left) > 0; left = commands(t, word) {
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("processes %q are left", left)
		}
	}
}

// firstLine tells when something came.
type firstLine struct{ seen func() }

func (f *firstLine) Write(p []byte) (int, error) {
	f.seen()
	return len(p), nil
}

func TestAProgramThatIsNotThereIsNamedInPlainWords(t *testing.T) {
	t.Parallel()
	e := execer(t, "no-program")
	for want, c := range map[string]sandbox.Command{
		`sandbox no-program: exec: exec: "nosuch": executable file not found in $PATH`:          {Args: []string{"nosuch"}},
		`sandbox no-program: exec: chdir to cwd ("/nowhere") failed: no such file or directory`: {Args: []string{"/bin/true"}, Cwd: "/nowhere"},
	} {
		if _, err := e.Exec(t.Context(), c); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}
