package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/sandboxtest"
)

// printing is hosting whose modules have a log.
type printing struct{ *device }

func (p printing) Spec(ctx context.Context, s Seat) (sandbox.Spec, error) {
	spec, err := p.device.Spec(ctx, s)
	spec.LogPath = s.Log
	return spec, err
}

// TestOutputOverAgents runs on real FIFOs and files: two agents, one module that prints all the while.
func TestOutputOverAgents(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	more := make(chan int)
	d.fake.Program = func(ctx context.Context, p *sandboxtest.Process) int {
		for {
			select {
			case n := <-more:
				p.Print(fmt.Sprintf("line %d", n))
			case <-ctx.Done():
				return 0
			}
		}
	}
	twins, err := twin.NewKeeper(d.docs)
	if err != nil {
		t.Fatal(err)
	}
	section := `{"schemaVersion":"1.1","modules":{"a":` + wanted("x", "always", ``, ``) + `}}`
	if _, err := twins.SetDesired(t.Context(), edgeAgent, json.RawMessage(section)); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range 3 { // agents
		s, err := New(Config{
			Device: "edge1", Runtime: d.fake, Images: d, Hosting: printing{d}, Twins: twins, Docs: d.docs, IDBase: 1 << 20,
			LogDir: d.dir + "/log", FIFODir: d.dir + "/fifo", Boot: "b",
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		<-s.Ready()
		for range 100 {
			more <- n
			n++
		}
		in, out := io.Pipe()
		go func() {
			out.CloseWithError(s.Logs(ctx, "a", LogQuery{Tail: -1, Follow: true}, out))
		}()
		lines := bufio.NewScanner(in)
		for i := range n {
			if !lines.Scan() {
				t.Fatalf("the log ends before line %d: %v", i, lines.Err())
			}
			if _, text, _ := strings.Cut(lines.Text(), " "); text != fmt.Sprintf("line %d", i) {
				t.Fatalf("got %q, want line %d", lines.Text(), i)
			}
		}
		if err := s.Logs(ctx, "nobody", LogQuery{}, io.Discard); !errors.Is(err, ErrNoModule) {
			t.Errorf("log of no module: got %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		more <- n // nobody collects now
		n++
	}
	d.destroyAll()
	if _, err := os.Stat(d.dir + "/log/a/00000001.seg"); err != nil {
		t.Error(err)
	}
}
