package workload

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// What a module begins to send and never ends: each is held for a while, answered once, closed and counted, and nobody else waits for it.
func TestBodiesAndFramesThatNeverEndAreCutAndHoldUpNobody(t *testing.T) {
	t.Parallel()
	k, _ := pinBoard(t)
	var stalled atomic.Int32
	k.cfg.Patience = 300 * time.Millisecond
	k.cfg.Stalled = func(id iothub.ID) {
		if id.Module == filter.Module {
			stalled.Add(1)
		}
	}
	if err := k.cfg.Hal.Grant("beside", []hal.Grant{{Name: "door", Read: true}}); err != nil {
		t.Fatal(err)
	}
	path := pinDoor(t, k.Server, filter.Module)
	self, beside := Dial(path), Dial(pinDoor(t, k.Server, "beside"))
	defer self.Close()
	defer beside.Close()
	const put = "PUT /v1/hal/relay HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n"
	const upgrade = "GET /v1/hal HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: " + halProtocol + "\r\n\r\n"
	const timeout = "408 Request Timeout"
	var conns []net.Conn
	var want []string
	begin := func(many int, text, ends string) {
		for range many {
			conn, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			conns, want = append(conns, conn), append(want, ends)
		}
	}
	frame := func(announced int, text string) string {
		return upgrade + string(binary.BigEndian.AppendUint32(nil, uint32(announced))) + text
	}
	begin(15, put+"Content-Length: 11\r\n\r\n", timeout)
	begin(15, put+"Content-Length: 11\r\n\r\n{\"val", timeout)
	begin(maxBodies, put+"Content-Length: 200000\r\n\r\n{\"val", timeout)
	begin(maxBodies, put+"Transfer-Encoding: chunked\r\n\r\n4\r\n{\"va\r\n", timeout) // wait for the four before
	begin(2, frame(maxHalFrame, "\xa1"), "did not in")
	begin(2, frame(20, ""), "did not in")
	begin(2, upgrade+"\x00\x00", "did not in")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ask := func(c *Client, method, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, "http://module/v1/hal/"+map[string]string{"GET": "door", "PUT": "relay"}[method], strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode >= 300 {
			t.Errorf("%s: got %s", method, res.Status)
		}
	}
	for stalled.Load() == 0 { // as long as all of them stand
		ask(beside, http.MethodGet, "")
		ask(self, http.MethodPut, `{"value":1}`)
	}
	for i, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		raw, err := io.ReadAll(bufio.NewReader(conn))
		if err != nil {
			t.Errorf("connection %d is open still: %v", i, err)
		}
		if got := string(raw); strings.Count(got, want[i]) != 1 {
			t.Errorf("connection %d: got %q, want it to end with %q once", i, got, want[i])
		}
	}
	if got := int(stalled.Load()); got != len(conns) {
		t.Errorf("%d were counted, want %d", got, len(conns))
	}
	ask(self, http.MethodPut, fmt.Sprintf(`{"value":0%s}`, strings.Repeat(" ", 2*smallBody))) // large bodies have their places back
}

func TestAFrameThatComesInPiecesIsAFrameAndAWatchMayBeSilentAfterIt(t *testing.T) {
	t.Parallel()
	k, sim := pinBoard(t)
	k.cfg.Patience = 5 * time.Second
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", pinDoor(t, k.Server, filter.Module))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/hal HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", halProtocol)
	in := bufio.NewReader(conn)
	for line := ""; line != "\r\n"; {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	doc := "\xa2\x62id\x07\x65watch\x64door"
	for _, b := range append(binary.BigEndian.AppendUint32(nil, uint32(len(doc))), doc...) {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	var room [1024]byte
	if raw, err := readFrame(in, room[:]); err != nil || string(raw) != "\xa1\x62id\x07" {
		t.Fatalf("got %q, %v, want the answer of a watch", raw, err)
	}
	sim.Set("door", 1)
	if raw, err := readFrame(in, room[:]); err != nil || !strings.Contains(string(raw), "rising") {
		t.Errorf("got %q, %v, want an edge", raw, err)
	}
}
