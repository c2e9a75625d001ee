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
// kernel maps sixteen pages around each page that was asked for, until nearly the whole file is mapped. So does whatever happens seldom: the
// end of a module's probation, the questions of an operator. [shrink] gives that back.
const (
	shrinkPace  = 10 * time.Second
	shrinkGrown = 1 << 20                // bytes of residence since the last time that are worth it
	shrinkIdle  = 200 * time.Millisecond // of processor time in shrinkPace: who needs more is at work, and would fetch it all again
	shrinkEvery = 10 * time.Minute       // also when it is at work
)

// shrink returns unused heap and the mapped pages of the program itself to the kernel whenever the process has grown and is idle. What is
// used again is mapped again from the page cache. It returns when ctx ends.
func shrink(ctx context.Context) {
	pace := time.NewTicker(shrinkPace)
	defer pace.Stop()
	var least int64 // residence after the last time
	var used time.Duration
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		now := processorTime()
		idle := now-used < shrinkIdle
		used = now
		if rss := resident(); rss < least+shrinkGrown || !idle && time.Since(last) < shrinkEvery {
			continue
		}
		debug.FreeOSMemory()
		_, _ = dropProgram() // a kernel that refuses costs memory and nothing else
		least, used, last = resident(), processorTime(), time.Now()
	}
}

// resident is how many bytes of this process are in memory (proc(5), statm); 0 when the kernel does not say.
func resident() int64 {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64) // 0 when it is no number
	return pages * int64(os.Getpagesize())
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
