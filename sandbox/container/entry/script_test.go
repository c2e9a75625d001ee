package entry

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStepsHaveTheSameNumbersInGoAndC: the two lists are written by hand.
func TestStepsHaveTheSameNumbersInGoAndC(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("script.h")
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`\bDO_[A-Z_]+`).FindAllString(string(raw), -1)
	want := []string{
		"JOIN", "CGROUP", "LOOPBACK", "ROOT", "ATTACH", "MOUNT", "LINK", "MASK", "READ_ONLY", "SEAL", "PIVOT", "HOSTNAME", "NULL", "BECOME", "WRITABLE", "RUN",
	}
	if len(got) != len(want) || int(doRun) != len(want) {
		t.Fatalf("got %d steps in C and %d in Go, want %d", len(got), doRun, len(want))
	}
	for n := range want {
		if got[n] != "DO_"+want[n] {
			t.Errorf("step %d: got %s, want DO_%s", n+1, got[n], want[n])
		}
	}
	for number, name := range map[int]string{doCgroup: "CGROUP", doAttach: "ATTACH", doMask: "MASK", doSeal: "SEAL", doBecome: "BECOME", doRun: "RUN"} {
		if want[number-1] != name {
			t.Errorf("Go's step %d: got %s, want %s", number, want[number-1], name)
		}
	}
}

func TestScriptsThatCannotBePlayedAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(s *Script)
		want string
	}{
		"a NUL byte":         {func(s *Script) { s.Hostname("a\x00b") }, `"a\x00b" holds a NUL byte`},
		"a huge environment": {func(s *Script) { s.Run([]string{"/x"}, []string{strings.Repeat("x", maxScript)}, nil) }, "arguments and environment are too long"},
		"too many mounts": {func(s *Script) {
			for range maxTrees + 1 {
				s.Attach(nil, "/x", true)
			}
		}, "too many mounts: 254 of at most 253"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s Script
			c.make(&s)
			if err := s.check(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// TestAChildTellsWhatItDidNotLike plays broken scripts to real children: each
// answers in words and is gone.
func TestAChildTellsWhatItDidNotLike(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED FOR LACK OF ROOT: no child was started")
	}
	if !Supported() {
		t.Skip("SKIPPED FOR LACK OF mount_setattr AND openat2 in this kernel")
	}
	for name, c := range map[string]struct {
		make func(s *Script)
		want string
	}{
		"a step it does not know":           {func(s *Script) { s.num(99) }, "script holds an unknown step"},
		"a text longer than the script":     {func(s *Script) { s.num(doHostname, 4000) }, "script is cut short"},
		"a text without an end":             {func(s *Script) { s.num(doHostname, 4); s.steps = append(s.steps, "abcd"...) }, "script holds a text without an end"},
		"a descriptor that did not come":    {func(s *Script) { s.num(doAttach, 7, 0); s.text("/x") }, "script names a descriptor that did not come"},
		"an end before the program":         {func(s *Script) { s.Hostname("x") }, "script is cut short"},
		"no program":                        {func(s *Script) { s.Run(nil, nil, nil) }, "script names no program"},
		"a program that is not there":       {func(s *Script) { s.Run([]string{"/not/there"}, nil, nil) }, `exec: "/not/there": stat /not/there: No such file or directory`},
		"a program that is in no directory": {func(s *Script) { s.Run([]string{"nope"}, []string{"PATH=/usr/bin:/bin"}, nil) }, `exec: "nope": executable file not found in $PATH`},
		"more groups than it takes":         {func(s *Script) { s.Become(0, 0, make([]int, 65), "/") }, "groups are more than 64"},
		"a file system that does not exist": {func(s *Script) { s.Mount("nofs", "/tmp", 0) }, "file system nofs: No such device"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child := newChild(t)
			var s Script
			c.make(&s)
			err := child.Play(&s)
			if err == nil || !strings.EqualFold(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if st, err := child.Wait(); err != nil || st.Success() {
				t.Errorf("got %v, %v, want an end that is no success", st, err)
			}
		})
	}
}

// newChild starts this test's binary as a child: the C part takes over before any
// test runs.
func newChild(t *testing.T) *Child {
	t.Helper()
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	path := t.TempDir() + "/gate"
	if err := unix.Mkfifo(path, 0o622); err != nil {
		t.Fatal(err)
	}
	gate, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Close()
	child, err := NewChild(Start{Exe: exe, Gate: gate, Namespaces: unix.CLONE_NEWUTS, IDBase: 1 << 30, IDCount: 65536})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(child.Abandon)
	return child
}
