// Command backlog fills a store with messages, or opens a filled one and drains it, and prints what that took as JSON. It is a program
// of its own so that its memory is the store's and nothing else's, and so that it can be built for 32 bits.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sandpiper-edge/sandpiper/store"
)

const (
	sink     = "upstream/m0"
	bodySize = 200
	perBatch = 1000
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: backlog fill|drain DIR MESSAGES")
		os.Exit(2)
	}
	n, err := strconv.Atoi(os.Args[3])
	var out map[string]any
	switch {
	case err != nil:
	case os.Args[1] == "fill":
		out, err = fill(os.Args[2], n)
	case os.Args[1] == "drain":
		out, err = drain(os.Args[2], n)
	default:
		err = fmt.Errorf("no phase %q", os.Args[1])
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "backlog:", err)
		os.Exit(1)
	}
}

func open(dir string) (*store.Store, chan error, error) {
	s, err := store.Open(store.Config{Dir: filepath.Join(dir, "store"), MaxBytes: 8 << 30})
	if err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	return s, ended, nil
}

func fill(dir string, n int) (map[string]any, error) {
	s, ended, err := open(dir)
	if err != nil {
		return nil, err
	}
	peak := watch()
	bodies := make([]byte, bodySize*perBatch)
	recs := make([]store.Record, perBatch)
	start := time.Now()
	for done := 0; done < n; done += len(recs) {
		recs = recs[:min(perBatch, n-done)]
		for i := range recs {
			body := bodies[i*bodySize:][:bodySize]
			copy(body, strconv.Itoa(done+i))
			recs[i] = store.Record{Body: body, Entries: []store.Entry{{Sink: sink}}}
		}
		if err := s.Queue().Append(context.Background(), recs...); err != nil {
			return nil, err
		}
	}
	took := time.Since(start)
	time.Sleep(5 * time.Second) // what is being sealed ends, and the runtime gives back what it does not need
	top, _ := peak()
	rest, _ := resident()
	used, err := disk(dir)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"messages": n, "fill_rate": float64(n) / took.Seconds(), "disk": used, "fill_rss": top.anon, "full_rss": rest.anon, "mapped_rss": top.file,
	}, errors.Join(s.Close(), <-ended)
}

func drain(dir string, n int) (map[string]any, error) {
	begin := time.Now()
	s, ended, err := open(dir)
	if err != nil {
		return nil, err
	}
	if items, _, err := s.Queue().Peek(sink, store.Cursor{}, 1, 0); err != nil || len(items) != 1 {
		return nil, fmt.Errorf("first item: got %d, %w", len(items), err)
	}
	reopen := time.Since(begin)
	peak := watch()
	start, got := time.Now(), 0
	for {
		items, _, err := s.Queue().Peek(sink, store.Cursor{}, 1024, 0)
		if err != nil {
			return nil, err
		}
		if len(items) == 0 {
			break
		}
		want := strconv.Itoa(got)
		if have := string(items[0].Body[:len(want)]); have != want {
			return nil, fmt.Errorf("item %d: got body %q", got, have)
		}
		if err := s.Queue().Ack(sink, items...); err != nil {
			return nil, err
		}
		got += len(items)
	}
	took := time.Since(start)
	if got != n {
		return nil, fmt.Errorf("got %d messages, want %d", got, n)
	}
	top, _ := peak()
	time.Sleep(5 * time.Second)
	used, err := disk(dir)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"reopen": reopen.Seconds(), "drain_rate": float64(n) / took.Seconds(), "drain_rss": top.anon, "disk_after": used,
	}, errors.Join(s.Close(), <-ended)
}

// disk is what the files below dir take, in bytes.
func disk(dir string) (int64, error) {
	total := int64(0)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += int64(info.Sys().(*syscall.Stat_t).Blocks) * 512
		}
		return err
	})
	return total, err
}

// memory is what the kernel says this process holds, in bytes.
type memory struct{ anon, file int64 }

func resident() (m memory, err error) {
	raw, err := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(raw)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[0], 10, 64)
		switch name {
		case "RssAnon":
			m.anon = kib << 10
		case "RssFile":
			m.file = kib << 10
		}
	}
	return m, err
}

// watch samples the memory until the returned func is called, which returns the most of each kind.
func watch() func() (memory, error) {
	var stop atomic.Bool
	done := make(chan struct{})
	var top memory
	var failed error
	go func() {
		defer close(done)
		for !stop.Load() {
			m, err := resident()
			failed = errors.Join(failed, err)
			top.anon, top.file = max(top.anon, m.anon), max(top.file, m.file)
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return func() (memory, error) { stop.Store(true); <-done; return top, failed }
}
