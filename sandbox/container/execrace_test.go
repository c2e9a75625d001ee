package container_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// TestASandboxEndsThoughCommandsWereAboutToStart: the kernel ends the first process of a pid namespace when all others are reaped, and a
// command that is killed while it enters is a child of ours that nobody waits for.
func TestASandboxEndsThoughCommandsWereAboutToStart(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for n := range 6 {
		s := spec(t, fmt.Sprintf("race-%d", n))
		s.Args = []string{"/bin/bash", "-c", "echo ready; while :; do sleep 1000 & wait $!; done"}
		i := start(t, r, s)
		if got := i.line(); got != "ready" {
			t.Fatalf("got %q, want it ready", got)
		}
		e, _ := i.Instance.(sandbox.Execer)
		var execs sync.WaitGroup
		for k := range 4 {
			execs.Go(func() {
				<-time.After(time.Duration(k*5) * time.Millisecond)
				for range 4 {
					_, _ = e.Exec(t.Context(), sandbox.Command{Args: []string{"/bin/true"}}) // most find no sandbox any more
				}
			})
		}
		<-time.After(time.Duration(5*n) * time.Millisecond)
		if err := i.Kill(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := i.Wait(ctx)
		cancel()
		execs.Wait()
		if err != nil {
			t.Fatalf("sandbox %d: %v", n, err)
		}
	}
}
