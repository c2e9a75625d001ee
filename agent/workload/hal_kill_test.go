package workload

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// writerVar has the test binary be a module that writes once to this socket and waits for an answer.
const writerVar = "SANDPIPER_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerVar); path != "" {
		conn, err := net.Dial("unix", path)
		if err == nil {
			_, err = fmt.Fprint(conn, "PUT /v1/hal/relay HTTP/1.1\r\nHost: agent\r\nContent-Length: 11\r\n\r\n{\"value\":1}")
		}
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		fmt.Fprintln(os.Stderr, "the writer ends by itself:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// heldBoard has its output driven and then keeps the call that drove it high from returning.
type heldBoard struct {
	*hal.Sim
	prompt  bool
	driven  chan float64  // each value, as soon as the output has it
	returns chan struct{} // closed: calls return
}

func (b *heldBoard) Open(ctx context.Context, r hal.Resource) (hal.Device, error) {
	d, err := b.Sim.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	return heldLine{d.(hal.Line), b}, nil
}

type heldLine struct {
	hal.Line
	board *heldBoard
}

func (l heldLine) Prompt() bool { return l.board.prompt }

func (l heldLine) Set(ctx context.Context, on bool) error {
	err := l.Line.Set(ctx, on)
	if !on {
		l.board.driven <- 0
		return err
	}
	l.board.driven <- 1
	<-l.board.returns
	return err
}

// A module is killed when its output has the value and it has no answer yet: the value stays until its end is known or its deadman is
// over, then the output is safe and the lease is nobody's.
func TestAModuleThatIsKilledBeforeTheAnswerToItsWriteLeavesItsOutputSafe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prompt   bool
		deadman  time.Duration
		early    bool // its end is known before the call returns
		because  string
		tellGone bool
	}{
		"its end is known while the call is under way":                {early: true, tellGone: true, because: "module ended: safe"},
		"its end is known after the call":                             {tellGone: true, because: "module ended: safe"},
		"as well on a bus whose callers have the turn":                {prompt: true, tellGone: true, because: "module ended: safe"},
		"its end is known while the caller has the turn":              {prompt: true, early: true, tellGone: true, because: "module ended: safe"},
		"nobody tells of its end, and its deadman is over in the end": {deadman: 200 * time.Millisecond, because: "lease expired: safe"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zero := 0.0
			relay := hal.Resource{Name: "relay", Kind: hal.KindLine, Bus: "c", Safe: &zero, Allow: []string{"*"}, Line: &hal.LinePart{Direction: hal.Out}}
			board := &heldBoard{Sim: hal.NewSim(), prompt: c.prompt, driven: make(chan float64, 8), returns: make(chan struct{})}
			s, pins := doorTo(context.WithoutCancel(t.Context()), t, board, relay)
			if err := pins.Grant(filter.Module, []hal.Grant{{Name: "relay", Read: true, Write: true, Deadman: c.deadman}}); err != nil {
				t.Fatal(err)
			}
			writer := exec.CommandContext(t.Context(), os.Args[0])
			writer.Env = append(os.Environ(), writerVar+"="+pinDoor(t, s, filter.Module))
			writer.Stderr = os.Stderr
			if err := writer.Start(); err != nil {
				t.Fatal(err)
			}
			if v := <-board.driven; v != 1 {
				t.Fatalf("got %v driven first, want 1", v)
			}
			if err := writer.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := writer.Wait(); err == nil || writer.ProcessState.Exited() {
				t.Fatalf("got %v, want a process that was killed", err)
			}
			if got := board.Trace("relay"); !slices.Equal(got, []float64{0, 1}) {
				t.Errorf("got trace %v, want the value as written", got)
			}
			gone := make(chan struct{})
			tell := func() {
				if c.tellGone {
					pins.Gone(filter.Module, "module ended")
				}
				close(gone)
			}
			if c.early {
				go tell()
			}
			close(board.returns)
			if !c.early {
				go tell()
			}
			<-gone
			if v := <-board.driven; v != 0 {
				t.Errorf("got %v driven then, want it safe", v)
			}
			if got := board.Trace("relay"); !slices.Equal(got, []float64{0, 1, 0}) {
				t.Errorf("got trace %v, want it safe in the end, once", got)
			}
			if got := pins.Leases(); len(got) > 0 {
				t.Errorf("got leases %v, want none", got)
			}
			log := pins.Log()
			if last := log[len(log)-1]; last.Who != filter.Module || last.What != c.because {
				t.Errorf("got %+v last in the record, want %q", last, c.because)
			}
			if _, err := pins.Write(t.Context(), filter.Module, "relay", 1, 0, 1); hal.CodeOf(err) != hal.LeaseLost {
				t.Errorf("a write with a fence of before: got %v, want lease_lost", err)
			}
		})
	}
}
