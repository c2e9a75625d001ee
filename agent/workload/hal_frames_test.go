package workload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// pinServer serves a module's side over a real socket.
func pinServer(t *testing.T, k *socket) string {
	t.Helper()
	server := httptest.NewServer(k.handler())
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.Listener.Addr().String()
}

func TestEventsComeInOrderAndTheModuleIsToldWhatItLost(t *testing.T) {
	t.Parallel()
	k, sim := pinBoard(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pinServer(t, k)+"/v1/hal/door/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	type event struct {
		Seq, Lost, Merged uint64
		Edge              string
		Mono              int64
		Time              time.Time
	}
	lines := json.NewDecoder(res.Body)
	next := func() event {
		t.Helper()
		var e event
		if err := lines.Decode(&e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	sim.Set("door", 1)
	first := next()
	if first.Edge != "rising" || first.Mono == 0 || first.Time.IsZero() || first.Lost != 0 {
		t.Errorf("got %+v, want a rising edge with both times", first)
	}
	// A stalled reader: the agent goes on reading the line, and the module learns how many it missed.
	const burst = 200_000
	for i := range burst {
		sim.Set("door", float64(i%2))
	}
	seen, lost, last := uint64(0), uint64(0), first
	for last.Seq < first.Seq+burst {
		e := next()
		if e.Seq != last.Seq+1+e.Lost {
			t.Fatalf("got sequence %d with %d lost after %d", e.Seq, e.Lost, last.Seq)
		}
		seen, lost, last = seen+1, lost+e.Lost, e
	}
	if seen+lost != burst {
		t.Errorf("got %d events and %d lost, want %d together", seen, lost, burst)
	}
}

// TestEventsOfAnAgentThatEndsJustEnd: a module that was told of an error would look for it at its line.
func TestEventsOfAnAgentThatEndsJustEnd(t *testing.T) {
	t.Parallel()
	ctx, leave := context.WithCancel(context.WithoutCancel(t.Context()))
	k, sim := pinBoardUntil(ctx, t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+pinServer(t, k)+"/v1/hal/door/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	sim.Set("door", 1)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "rising") {
		t.Errorf("got %q, %v", line, err)
	}
	leave()
	if rest, err := io.ReadAll(in); err != nil || len(rest) != 0 {
		t.Errorf("got %q, %v, want the end", rest, err)
	}
}

// framed is a module's end of a connection of frames.
type framed struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dialFrames(t *testing.T, addr string) framed {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /v1/hal HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", halProtocol)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v, want 101", res, err)
	}
	return framed{t, conn, in}
}

func (f framed) ask(req any) frameAnswer {
	f.t.Helper()
	raw, err := cbor.Marshal(req)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...)); err != nil {
		f.t.Fatal(err)
	}
	return f.answer()
}

func (f framed) answer() (a frameAnswer) {
	f.t.Helper()
	raw, err := readFrame(f.in, make([]byte, 64))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := cbor.Unmarshal(raw, &a); err != nil {
		f.t.Fatal(err)
	}
	return a
}

func TestFramesDoWhatRequestsDo(t *testing.T) {
	t.Parallel()
	k, sim := pinBoard(t)
	f := dialFrames(t, pinServer(t, k))
	if a := f.ask(map[string]any{"id": 7, "name": "relay", "value": 1}); a.ID != 7 || a.Fence == 0 || a.Error != nil {
		t.Errorf("write: got %+v", a)
	}
	if a := f.ask(map[string]any{"id": 8, "name": "door"}); a.ID != 8 || a.Value == nil || *a.Value != 1 {
		t.Errorf("read: got %+v", a)
	}
	if a := f.ask(map[string]any{"id": 9, "ops": []any{map[string]any{"name": "imu", "w": []byte{0x10, 0xa5}}, map[string]any{"name": "imu", "w": []byte{0x10}, "r": 1}}}); len(a.Ops) != 2 || !bytes.Equal(a.Ops[1].R, []byte{0xa5}) {
		t.Errorf("batch: got %+v", a)
	}
	if a := f.ask(map[string]any{"id": 10, "name": "imu", "w": []byte{0x1f}, "r": 2}); a.Error == nil || a.Error.Code != "denied" {
		t.Errorf("one past the range: got %+v", a)
	}
	if a := f.ask(map[string]any{"id": 11, "name": "secret"}); a.Error == nil || a.Error.Code != "unknown" {
		t.Errorf("what is not granted: got %+v", a)
	}
	if a := f.ask(map[string]any{"id": 12, "watch": "door"}); a.ID != 12 || a.Error != nil {
		t.Errorf("watch: got %+v", a)
	}
	sim.Set("door", 0)
	var edges []string // the kernel kept the rising one, too, for the first who listens
	for len(edges) < 2 {
		a := f.answer()
		for _, e := range a.Events {
			edges = append(edges, string(e.Edge))
		}
	}
	if got := strings.Join(edges, " "); got != "rising falling" {
		t.Errorf("events: got %s", got)
	}
}

func TestFramesThatAreNoneEndTheConnectionAndTheirNumberIsBounded(t *testing.T) {
	t.Parallel()
	k, _ := pinBoard(t)
	addr := pinServer(t, k)
	for name, raw := range map[string][]byte{
		"a length of a gigabyte": {0x40, 0, 0, 0},
		"a length of nothing":    {0, 0, 0, 0},
		"no map":                 {0, 0, 0, 1, 0x01},
		"half a map":             {0, 0, 0, 1, 0xa1},
	} {
		f := dialFrames(t, addr)
		if _, err := f.conn.Write(raw); err != nil {
			t.Fatal(err)
		}
		_ = f.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadAll(f.in); err != nil {
			t.Errorf("%s: got %v, want the end", name, err)
		}
		f.conn.Close()
	}
	k, _ = pinBoard(t) // one that has no connection left to give back
	addr = pinServer(t, k)
	for range maxHalFrames {
		dialFrames(t, addr)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/hal HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", halProtocol)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one more: got %v, %v, want 429", res, err)
	}
}

func FuzzHalFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x0a\xa2\x62id\x01\x64name\x61a"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := readFrame(bytes.NewReader(b), make([]byte, 16))
		if err != nil {
			return
		}
		if len(raw) > len(b)-4 {
			t.Fatalf("%d bytes of %d", len(raw), len(b))
		}
		var req frameRequest
		if err := cbor.Unmarshal(raw, &req); err != nil {
			var syntax *cbor.SyntaxError
			_ = errors.As(err, &syntax)
			return
		}
		if _, err := cbor.Marshal(&req); err != nil && !strings.Contains(err.Error(), "UTF-8") {
			t.Fatal(err)
		}
	})
}
