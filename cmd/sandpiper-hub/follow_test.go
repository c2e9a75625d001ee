package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
)

// serving runs the hub of a directory until stop.
func serving(t *testing.T, dir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	said, stdout := io.Pipe()
	var stderr strings.Builder
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--dir", dir, "serve", "--host", "hub.sandpiper.test", "--mqtt", "127.0.0.1:0", "--https", "127.0.0.1:0"}, nil, stdout, &stderr)
		stdout.Close()
	}()
	lines := bufio.NewReader(said)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatalf("%v: exit code %d, %s", err, <-ended, stderr.String())
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return sync.OnceFunc(func() {
		cancel()
		if code := <-ended; code != 0 {
			t.Errorf("hub: got exit code %d, %s", code, stderr.String())
		}
	})
}

func TestWhoFollowsEventsStaysOverARestartOfTheHub(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stop := serving(t, dir)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	in, out := io.Pipe()
	waits, errs := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"--dir", dir, "events", "-f", "--all", "--json"}, nil, out, errs)
		out.Close()
		errs.Close()
	}()
	events := json.NewDecoder(in)
	seen := map[[2]uint64]bool{}
	expect := func(device string) {
		t.Helper()
		if made, _, said := typed(t, dir, "", "device", "create", device); made != 0 {
			t.Fatalf("create: %s", said)
		}
		for {
			var e hub.Event
			if err := events.Decode(&e); err != nil {
				t.Fatal(err)
			}
			if name := [2]uint64{uint64(e.Shard), e.Offset}; seen[name] {
				t.Errorf("got %+v twice", e)
			} else {
				seen[name] = true
			}
			if e.Device == device {
				return
			}
		}
	}
	expect("edge1")
	expect("edge2")
	stop()
	said := bufio.NewReader(waits)
	if line, err := said.ReadString('\n'); err != nil || line != "sandpiper-hub: the hub is away; waiting\n" {
		t.Errorf("got %q, %v", line, err)
	}
	stop = serving(t, dir)
	defer stop()
	expect("edge3")
	expect("edge4")
	interrupt()
	go func() { _, _ = io.Copy(io.Discard, in) }()
	if rest, err := io.ReadAll(said); len(rest) > 0 || err != nil {
		t.Errorf("standard error goes on: %q, %v", rest, err)
	}
	if got := <-code; got != 130 {
		t.Errorf("got exit code %d, want 130", got)
	}
}
