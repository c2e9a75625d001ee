package container

import (
	"os"
	"strings"
	"testing"
)

func TestLedgerKeepsTheNewest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := OpenLedger(dir)
	if _, ok := l.Find(1, 1); ok {
		t.Error("found something in no file")
	}
	const n = 5000
	for i := 1; i <= n; i++ {
		if err := l.append(record{pid: 100 + i%7, start: uint64(i), status: 7 << 8}); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(l.path); err != nil || st.Size() > maxLedger {
		t.Errorf("got %v, %v, want at most %d bytes", st, err, maxLedger)
	}
	if _, ok := l.Find(100+n%7, n); !ok {
		t.Error("the newest is not found")
	}
	if _, ok := l.Find(100+n%7, n-1); ok {
		t.Error("another process with the same pid is found")
	}
	if _, ok := l.Find(100+(n-1000)%7+1, n-1000); ok {
		t.Error("a wrong pid is found")
	}
	b, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := parseRecord(strings.TrimSuffix(line, "\n")); err != nil {
			t.Error(err)
		}
	}
}

func TestLedgerPassesOverATornLine(t *testing.T) {
	t.Parallel()
	l := OpenLedger(t.TempDir())
	if err := os.WriteFile(l.path, []byte("12 34\nx y z\n\n5 6 256"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, ok := l.Find(5, 6); !ok || s.ExitStatus() != 1 {
		t.Errorf("got %v, %v, want code 1", s, ok)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("12 345 256")
	f.Add("1 18446744073709551615 4294967295")
	f.Add("-1 0 0")
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseRecord(line)
		if err != nil {
			return
		}
		again, err := parseRecord(strings.TrimSuffix(r.String(), "\n"))
		if err != nil || again != r {
			t.Errorf("%q: got %+v, %v, want %+v", line, again, err, r)
		}
	})
}

func TestPassable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"READY=1":                        "READY=1",
		"MAINPID=7\nREADY=1\nSTATUS=a=b": "READY=1\nSTATUS=a=b",
		"FDSTORE=1\nFDNAME=x":            "",
		"WATCHDOG=1\n":                   "WATCHDOG=1",
		"":                               "",
	} {
		if got := passable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
