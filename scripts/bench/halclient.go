package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// halClient is one kept connection that asks the same thing again and again.
type halClient struct {
	conn net.Conn
	in   *bufio.Reader
	ask  []byte
	read func(*bufio.Reader) error
}

func (c halClient) once() error {
	if _, err := c.conn.Write(c.ask); err != nil {
		return err
	}
	return c.read(c.in)
}

func dial(path string) (net.Conn, *bufio.Reader) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		panic(err) // the socket was made a moment ago
	}
	return conn, bufio.NewReader(conn)
}

// readHead reads an answer of HTTP that has no body.
func readHead(r *bufio.Reader) error {
	first := true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !strings.HasPrefix(string(line), "HTTP/1.1 204") {
			return fmt.Errorf("answer %q", line)
		}
		if first = false; len(line) <= 2 {
			return nil
		}
	}
}

const putRelay = "PUT /v1/hal/relay-0 HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"value\":1}"

func newPut(path string) halClient { return newPutOf(path, "relay-0") }

func newPutOf(path, name string) halClient {
	conn, in := dial(path)
	return halClient{conn, in, []byte(strings.Replace(putRelay, "relay-0", name, 1)), readHead}
}

// newNoop is the same request to a handler that reads the body and does nothing.
func newNoop(dir string) halClient {
	path := filepath.Join(dir, "noop.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/hal/{name}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	})
	same := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	go func() { _ = same.Serve(l) }()
	conn, in := dial(path)
	return halClient{conn, in, []byte(putRelay), readHead}
}

func frameOf(doc any) []byte {
	raw, err := cbor.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...)
}

func readFrame(r *bufio.Reader) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	_, err := r.Discard(int(binary.BigEndian.Uint32(head[:])))
	return err
}

func relayFrame(writes int) []byte {
	if writes == 1 {
		return frameOf(map[string]any{"id": 1, "name": "relay-0", "value": 1})
	}
	ops := make([]any, writes)
	for i := range ops {
		ops[i] = map[string]any{"name": "relay-0", "value": float64(i % 2)}
	}
	return frameOf(map[string]any{"id": 1, "ops": ops})
}

func newFramed(path string, writes int) halClient {
	conn, in := dial(path)
	if _, err := io.WriteString(conn, "GET /v1/hal HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: sandpiper-hal/1\r\n\r\n"); err != nil {
		panic(err)
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		panic(fmt.Sprint("upgrade: ", res, err))
	}
	return halClient{conn, in, relayFrame(writes), readFrame}
}

// newEcho sends back each frame as it came.
func newEcho(dir string) halClient {
	path := filepath.Join(dir, "echo.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		in := bufio.NewReader(conn)
		buf := make([]byte, 4096)
		for {
			if _, err := io.ReadFull(in, buf[:4]); err != nil {
				return
			}
			n := 4 + int(binary.BigEndian.Uint32(buf))
			if _, err := io.ReadFull(in, buf[4:n]); err != nil {
				return
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	conn, in := dial(path)
	return halClient{conn, in, relayFrame(1), readFrame}
}

// stream opens a stream of lines.
func stream(path, target string) (*bufio.Scanner, func(), error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	res, err := client.Get("http://agent" + target)
	if err != nil {
		return nil, nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: %s", target, res.Status)
	}
	return bufio.NewScanner(res.Body), func() { res.Body.Close(); client.CloseIdleConnections() }, nil
}
