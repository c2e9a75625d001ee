package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFollowerGivesUpInTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		f := Follower{Say: &said}
		away := fmt.Errorf("ask: %w", &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED})
		if err := f.Again(t.Context(), away); !errors.Is(err, syscall.ECONNREFUSED) || said.String() != "" {
			t.Errorf("an agent that never was: got %v, %q", err, said.String())
		}
		f.Met()
		if err := f.Again(t.Context(), errors.New("no such module")); err == nil || isAway(err) {
			t.Errorf("an agent that says no: got %v", err)
		}
		began := time.Now()
		var err error
		for err == nil {
			err = f.Again(t.Context(), away)
		}
		if waited := time.Since(began); waited < AwayMost || waited > AwayMost+time.Second || said.String() != "sandpiper: the agent is away; waiting\n" {
			t.Errorf("got %v after %s, %q", err, waited, said.String())
		}
		ctx, cancel := context.WithCancel(t.Context())
		f.Met()
		time.AfterFunc(10*time.Millisecond, cancel)
		if err := f.Again(ctx, away); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: got %v", err)
		}
	})
}
