package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The memory a process needs to start is not the memory it needs to run: a start walks through most of the program once, and the
// kernel maps sixteen pages around each page that was asked for, until nearly the whole file is mapped. [shrink] gives that back.
const (
	shrinkAfter = 10 * time.Second // doubled each time: nobody says when the last module has started
	shrinkEvery = 10 * time.Minute
)

// shrink returns unused heap and the mapped pages of the program itself to the kernel, more and more seldom and in the end every ten
// minutes. What is used again is mapped again from the page cache. It returns when ctx ends.
func shrink(ctx context.Context) {
	wait := shrinkAfter
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		debug.FreeOSMemory()
		_, _ = dropProgram() // a kernel that refuses costs memory and nothing else
		wait = min(2*wait, shrinkEvery)
		timer.Reset(wait)
	}
}

// mapping is a range of addresses, the end not included.
type mapping struct{ start, end uintptr }

// dropProgram unmaps the pages of the running program's code and constants, and says how many bytes of addresses it covered.
func dropProgram() (uintptr, error) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, err
	}
	defer smaps.Close()
	clean, err := cleanMappings(smaps, program)
	if err != nil {
		return 0, err
	}
	var total uintptr
	for _, m := range clean {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return total, fmt.Errorf("give back the program's pages: %w", errno)
		}
		total += m.end - m.start
	}
	return total, nil
}

// cleanMappings finds the read-only mappings of program in the text of /proc/PID/smaps (proc(5)).
//
// One that has anonymous pages was written to before it became read-only, as relocations are: dropping it would bring back the
// file's bytes without them, so it stays.
func cleanMappings(smaps io.Reader, program string) ([]mapping, error) {
	var found []mapping
	var current mapping
	ours := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 3 && fields[0] == "Anonymous:":
			if ours && fields[1] == "0" {
				found = append(found, current)
			}
			ours = false
		case len(fields) >= 5 && !strings.HasSuffix(fields[0], ":"):
			from, to, ok := strings.Cut(fields[0], "-")
			start, err := strconv.ParseUint(from, 16, strconv.IntSize)
			end, err2 := strconv.ParseUint(to, 16, strconv.IntSize)
			if !ok || err != nil || err2 != nil || end < start {
				return nil, fmt.Errorf("smaps: %q is no range of addresses", fields[0])
			}
			current = mapping{uintptr(start), uintptr(end)}
			ours = len(fields) > 5 && strings.Join(fields[5:], " ") == program && (fields[1] == "r-xp" || fields[1] == "r--p")
		}
	}
	return found, lines.Err()
}
