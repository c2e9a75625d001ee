package sandboxtest_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/sandboxtest"
)

func TestFakeKeepsTheContract(t *testing.T) {
	t.Parallel()
	var runtimes sync.Map // *testing.T → *Fake: memory outlives the "agent"
	sandboxtest.Run(t, func(t *testing.T) sandbox.Runtime {
		t.Helper()
		f, _ := runtimes.LoadOrStore(t, &sandboxtest.Fake{})
		return f.(*sandboxtest.Fake)
	})
}

func TestFakeRunsOnVirtualTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := &sandboxtest.Fake{Program: func(ctx context.Context, _ *sandboxtest.Process) int {
			select {
			case <-time.After(24 * time.Hour):
				return 5
			case <-ctx.Done():
				return 0
			}
		}}
		i, err := fake.Create(t.Context(), sandbox.Spec{
			ID: "daily", Args: []string{"x"}, IDBase: sandbox.MinIDBase, Root: sandbox.Root{Image: "/image"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Start(); err != nil {
			t.Fatal(err)
		}
		e, err := i.Wait(t.Context())
		if err != nil || e.Code != 5 || e.At.Sub(i.Started()) != 24*time.Hour {
			t.Errorf("got %+v, %v, want code 5 after a day", e, err)
		}
	})
}

func TestForceExitIsWhatWaitTells(t *testing.T) {
	t.Parallel()
	fake := &sandboxtest.Fake{}
	i, err := fake.Create(t.Context(), sandbox.Spec{
		ID: "hog", Args: []string{"x"}, IDBase: sandbox.MinIDBase, Root: sandbox.Root{Image: "/image"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	fake.Instance("hog").ForceExit(sandbox.Exit{Code: 137, Signal: "SIGKILL", OOM: true, Known: true})
	if e, err := i.Wait(t.Context()); err != nil || !e.OOM || e.Code != 137 {
		t.Errorf("got %+v, %v, want an OOM kill", e, err)
	}
}
