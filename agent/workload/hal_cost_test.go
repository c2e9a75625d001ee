package workload

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// BenchmarkRequestOverTheSocket is a write of a relay beside the same request to an empty handler behind a server with the same
// limits: what the ratio of the benchmark hal.http is made of.
func BenchmarkRequestOverTheSocket(b *testing.B) {
	for name, handler := range map[string]func(*testing.B) http.Handler{"write": writing, "empty": empty} {
		b.Run(name, func(b *testing.B) {
			l, err := (&net.ListenConfig{}).Listen(b.Context(), "unix", filepath.Join(b.TempDir(), "s"))
			if err != nil {
				b.Fatal(err)
			}
			server := &http.Server{Handler: handler(b), ReadHeaderTimeout: headerTime, ReadTimeout: readTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader}
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(l) }()
			conn, err := (&net.Dialer{}).DialContext(b.Context(), "unix", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			in := bufio.NewReader(conn)
			ask := []byte("PUT /v1/hal/relay HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"value\":1}")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(ask); err != nil {
					b.Fatal(err)
				}
				for n := 0; n != 2; { // up to the empty line
					line, err := in.ReadSlice('\n')
					if err != nil {
						b.Fatal(err)
					}
					if n = len(line); bytes.HasPrefix(line, []byte("HTTP/1.1 4")) {
						b.Fatalf("%s", line)
					}
				}
			}
			_ = conn.Close()
			_ = server.Close()
			<-ended
		})
	}
}

func empty(*testing.B) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/hal/{name}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func writing(b *testing.B) http.Handler {
	b.Helper()
	zero := 0.0
	pins, err := hal.New(hal.ServerConfig{Backend: hal.NewSim(), Resources: []hal.Resource{
		{Name: "relay", Kind: hal.KindLine, Bus: "c", Safe: &zero, Allow: []string{"*"}, Line: &hal.LinePart{Direction: hal.Out}},
	}})
	if err != nil {
		b.Fatal(err)
	}
	if err := pins.Grant("filter", []hal.Grant{{Name: "relay", Write: true}}); err != nil {
		b.Fatal(err)
	}
	go func() { _ = pins.Run(b.Context()) }()
	k := &socket{Server: &Server{cfg: Config{Hal: pins, Now: time.Now}, log: slog.New(slog.DiscardHandler)}, caller: Caller{ID: filter}, bodies: make(chan struct{}, maxBodies)}
	return k.handler()
}
