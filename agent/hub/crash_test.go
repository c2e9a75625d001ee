package hub_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// childDir makes this test binary a hub in that directory, to be killed.
const childDir = "SANDPIPER_HUB_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(serveUntilKilled(dir)) //nolint:forbidigo // this is the main of a child process
	}
	os.Exit(m.Run()) //nolint:forbidigo // and this that of the tests
}

// serveUntilKilled runs a hub, says where, and ends when standard input does, or is killed.
func serveUntilKilled(dir string) int {
	h, err := hubtest.Start(context.Background(), hubtest.Options{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, h.MQTT, h.HTTPS)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := h.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a hub in a process of its own.
type child struct {
	cmd  *exec.Cmd
	mqtt string
}

func startChild(t *testing.T, dir string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child hub said nothing: %v", err)
	}
	return &child{cmd: cmd, mqtt: strings.Fields(line)[0]}
}

// A hub killed in the middle of commits keeps every message it acknowledged, once each unless its sender repeated it, in order.
func TestAKilledHubLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := hubtest.New(t, hubtest.Options{Dir: dir})
	cs := register(t, h, "edge1", "")
	conf := h.TLS()
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]bool{}
	const rounds, window = 4, 400
	for round := range rounds {
		hub := startChild(t, dir)
		c, err := dial(t.Context(), &hubtest.Hub{MQTT: hub.mqtt}, cs, mqtttest.Options{}, conf)
		if err != nil {
			t.Fatal(err)
		}
		acks := map[string]<-chan []byte{}
		var order []string
		for i := range window {
			mid := fmt.Sprintf("%d-%d", round, i)
			acked, err := c.Start("devices/edge1/messages/events/%24.mid="+mid, []byte(strings.Repeat("x", 200)))
			if err != nil {
				break
			}
			acks[mid] = acked
			order = append(order, mid)
		}
		killAfter := (round + 1) * 60
		for i, mid := range order {
			if i == killAfter {
				if err := hub.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if _, ok := <-acks[mid]; ok {
				acknowledged[mid] = true
			}
		}
		_ = c.Abort()
		_ = hub.cmd.Wait()
	}
	after := hubtest.New(t, hubtest.Options{Dir: dir})
	events, err := after.Telemetry(t.Context(), "edge1")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	last := map[string]int{}
	for _, e := range events {
		mid := e.System["$.mid"]
		seen[mid]++
		var round string
		var i int
		if _, err := fmt.Sscanf(strings.Replace(mid, "-", " ", 1), "%s %d", &round, &i); err != nil {
			t.Fatal(err)
		}
		if have, ok := last[round]; ok && i != have+1 {
			t.Errorf("round %s: message %d after %d", round, i, have)
		}
		last[round] = i
	}
	lost := 0
	for mid := range acknowledged {
		if seen[mid] != 1 {
			lost++
		}
	}
	t.Logf("acknowledged %d, in the log %d, lost %d", len(acknowledged), len(events), lost)
	if lost != 0 || len(acknowledged) == 0 {
		t.Errorf("lost or doubled: got %d of %d acknowledged, want none", lost, len(acknowledged))
	}
}
