package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestOnlyUntouchedReadOnlyMappingsOfTheProgramAreGivenBack(t *testing.T) {
	t.Parallel()
	const smaps = `00400000-00401000 r--p 00000000 fe:00 11 /usr/bin/sandpiper
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
00401000-00a84000 r-xp 00001000 fe:00 11 /usr/bin/sandpiper
Anonymous:             0 kB
00e00000-00e01000 r-xp 00000000 fe:00 11 /usr/bin/sandpiper (deleted)
Anonymous:             0 kB
00a84000-00a85000 r--p 00684000 fe:00 11 /usr/bin/sandpiper
Anonymous:             4 kB
01137000-0119b000 rw-p 00d36000 fe:00 11 /usr/bin/sandpiper
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:00 12 /usr/lib/other.so
Anonymous:             0 kB
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
Anonymous:             0 kB
`
	got, err := cleanMappings(strings.NewReader(smaps), "/usr/bin/sandpiper")
	if want := []mapping{{0x400000, 0x401000}, {0x401000, 0xa84000}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	if _, err := cleanMappings(strings.NewReader("zz-1 r-xp 0 0 0 /a\n"), "/a"); err == nil {
		t.Error("a range that is none was taken")
	}
}

func TestAProgramRunsOnAfterItsPagesWereGivenBack(t *testing.T) {
	t.Parallel()
	covered, err := dropProgram()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if int64(covered) < info.Size()/4 {
		t.Errorf("gave back %d bytes of addresses, want at least a quarter of the program's %d", covered, info.Size())
	}
	if got := strings.Repeat("still here ", 2); got != "still here still here " {
		t.Error(got)
	}
}
