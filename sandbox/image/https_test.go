package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// server serves handler over TLS on loopback and returns its URL and a store that trusts it.
func server(t *testing.T, handler http.HandlerFunc, change func(*Config)) (string, *Store) {
	t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // cut connections and refused certificates are what is tested
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s := open(t, func(c *Config) {
		c.HTTP = srv.Client()
		if change != nil {
			change(c)
		}
	})
	return srv.URL + "/x.spb", s
}

// static serves b the way every web server does: ranges, a strong ETag, a length.
func static(w http.ResponseWriter, r *http.Request, b []byte) {
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, len(b)+int(b[len(b)-1])))
	http.ServeContent(w, r, "x.spb", time.Time{}, bytes.NewReader(b))
}

// cutWriter ends the connection after some bytes of body, and counts what went out.
type cutWriter struct {
	http.ResponseWriter
	left int
	sent *atomic.Int64
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		n, _ := c.ResponseWriter.Write(p[:c.left])
		c.sent.Add(int64(n))
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := c.ResponseWriter.Write(p)
	c.left -= n
	c.sent.Add(int64(n))
	return n, err
}

func TestHTTPSInstalls(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	url, s := server(t, func(w http.ResponseWriter, r *http.Request) { static(w, r, spb) }, nil)
	img, err := s.Fetch(t.Context(), url, "", nil)
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	if err := s.Verify(t.Context(), img); err != nil {
		t.Errorf("verify: %v", err)
	}
}

func TestCutAtAnyByteGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	random := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		var sent atomic.Int64
		var mu sync.Mutex
		cuts := 0
		at := 9000 + random.IntN(len(spb)-9000) // behind the index: what is before it is read again
		url, s := server(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			cuts++
			left := len(spb)
			if cuts == 1 {
				left = at
			}
			mu.Unlock()
			static(&cutWriter{w, left, &sent}, r, spb)
		}, nil)
		img, err := s.Fetch(t.Context(), url, "", nil)
		if err != nil {
			t.Errorf("cut at %d: %v", at, err)
			continue
		}
		if err := s.Verify(t.Context(), img); err != nil {
			t.Errorf("cut at %d: %v", at, err)
		}
		// A cut loses at most the chunk it was in and the buffers in between.
		if got, most := sent.Load(), int64(len(spb)*11/10); got > most {
			t.Errorf("cut at %d: %d bytes were sent for %d, want at most %d", at, got, len(spb), most)
		}
	}
}

func TestCutBeforeThePayloadStartsAgain(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	for _, at := range []int{0, 1, 31, 32, 33, 300, 4095, 4096, 8191} {
		var sent atomic.Int64
		var tries atomic.Int32
		url, s := server(t, func(w http.ResponseWriter, r *http.Request) {
			left := len(spb)
			if tries.Add(1) == 1 {
				left = at
			}
			static(&cutWriter{w, left, &sent}, r, spb)
		}, nil)
		if _, err := s.Fetch(t.Context(), url, "", nil); err != nil {
			t.Errorf("cut at %d: %v", at, err)
		}
	}
}

func TestEveryConnectionCutStillArrives(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	var sent atomic.Int64
	url, s := server(t, func(w http.ResponseWriter, r *http.Request) {
		static(&cutWriter{w, 256 << 10, &sent}, r, spb) // never the whole
	}, nil)
	if _, err := s.Fetch(t.Context(), url, "", nil); err != nil {
		t.Errorf("fetch: %v", err)
	}
}

func TestConnectionsThatBringNothingEndTheFetchAndKeepThePart(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	var sent atomic.Int64
	var down atomic.Bool
	url, s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if down.Swap(true) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		static(&cutWriter{w, len(spb) / 2, &sent}, r, spb)
	}, nil)
	if _, err := s.Fetch(t.Context(), url, "", nil); err == nil || !strings.Contains(err.Error(), "503") {
		t.Fatalf("fetch from a server that is down: got %v, want its answer", err)
	}
	if len(names(t, s.stage())) != 3 {
		t.Fatalf("stage: %v, want the part file, its head and the start of the chunk that was cut", names(t, s.stage()))
	}
	cfg := s.cfg
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sent.Store(0)
	s = reopen(t, cfg, nil)
	down.Store(false)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		static(&cutWriter{w, len(spb), &sent}, r, spb)
	}))
	t.Cleanup(srv.Close)
	s.cfg.HTTP = srv.Client()
	if _, err := s.Fetch(t.Context(), srv.URL+"/moved.spb", "", nil); err != nil {
		t.Fatalf("fetch by the next agent: %v", err)
	}
	t.Logf("the second fetch took %d of %d bytes", sent.Load(), len(spb))
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

func TestI3StalledTransfersAreCut(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	var tries atomic.Int32
	url, s := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch tries.Add(1) {
		case 1: // never answers
		case 2: // stops in the payload
			w.Header().Set("Content-Length", fmt.Sprint(len(spb)))
			_, _ = w.Write(spb[:len(spb)/2])
			flush(w)
		default:
			static(w, r, spb)
			return
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}, func(c *Config) { c.Stall = 300 * time.Millisecond })
	if _, err := s.Fetch(t.Context(), url, "", nil); err != nil {
		t.Errorf("fetch: %v", err)
	}
	if got := tries.Load(); got != 3 {
		t.Errorf("%d connections, want 3", got)
	}
}

func TestEndedContextEndsATransferAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	url, s := server(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}, nil)
	if _, err := s.Fetch(ctx, url, "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestUntrustedCertificateIsFinal(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	url, s := server(t, func(http.ResponseWriter, *http.Request) { tries.Add(1) }, func(c *Config) { c.HTTP = nil })
	_, err := s.Fetch(t.Context(), url, "", nil)
	refused(t, s, err, bundle.ErrTransfer)
	if err != nil && !strings.Contains(err.Error(), "trusted_ca") {
		t.Errorf("got %q, want what to configure", err)
	}
}

func TestUnreachableServerIsTriedAgainAndThenReported(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	url := srv.URL
	srv.Close()
	pauses := 0
	s := open(t, func(c *Config) {
		c.Retry = func(try int) time.Duration { pauses++; return time.Duration(try) }
	})
	_, err := s.Fetch(t.Context(), url+"/x.spb", "", nil)
	if err == nil || bundle.CodeOf(err) != "" || pauses != maxIdle-1 {
		t.Errorf("got %v after %d pauses, want the connection's error after %d", err, pauses, maxIdle-1)
	}
}

func TestBackoffGrowsToAMinute(t *testing.T) {
	t.Parallel()
	for try := 1; try < 40; try++ {
		full := min(time.Second<<min(try-1, 10), time.Minute)
		if got := backoff(try); got < full/2 || got > full {
			t.Errorf("pause %d: got %v, want %v to %v", try, got, full/2, full)
		}
	}
}
