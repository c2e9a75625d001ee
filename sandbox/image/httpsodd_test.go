package image

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// misbehaviour is a server that does not what it should.
type misbehaviour struct {
	serve http.HandlerFunc
	want  bundle.Code // "" = installed
}

// misbehaving are row I1.
func misbehaving(t *testing.T) map[string]misbehaviour {
	t.Helper()
	spb := big(t, nil)
	other := big(t, func(m *bundle.Manifest) { m.Version = "9" })
	// second cuts the first connection in the payload and lets answer handle the one that goes on.
	second := func(answer func(w http.ResponseWriter, r *http.Request)) http.HandlerFunc {
		var tries atomic.Int32
		return func(w http.ResponseWriter, r *http.Request) {
			if tries.Add(1) == 1 {
				static(&cutWriter{w, len(spb) / 2, new(atomic.Int64)}, r, spb)
				return
			}
			answer(w, r)
		}
	}
	whole := func(w http.ResponseWriter, b []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b)
	}
	return map[string]misbehaviour{
		"200 for 206": {second(func(w http.ResponseWriter, _ *http.Request) { whole(w, spb) }), ""},
		"200 for 206, another bundle": {second(func(w http.ResponseWriter, r *http.Request) {
			static(w, r, other)
		}), ""},
		"416": {second(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			whole(w, spb)
		}), ""},
		"wrong Content-Range": {second(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-9/%d", len(spb)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(spb[:10])
		}), bundle.ErrTransfer},
		"multipart ranges": {second(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			w.WriteHeader(http.StatusPartialContent)
		}), bundle.ErrTransfer},
		"206 unasked": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) }, bundle.ErrTransfer},
		"gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			whole(w, spb)
		}, bundle.ErrTransfer},
		"404": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, bundle.ErrTransfer},
		"a page": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<!doctype html><html></html>      "))
		}, bundle.ErrMagic},
		"no length": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(spb[:1])
			flush(w)
			_, _ = w.Write(spb[1:])
		}, ""},
		"no length, more": {func(w http.ResponseWriter, _ *http.Request) { flush(w); _, _ = w.Write(append(clone(spb), 1)) }, bundle.ErrLength},
		"no length, less": {func(w http.ResponseWriter, r *http.Request) { flush(w); _, _ = w.Write(spb[:len(spb)-1]) }, bundle.ErrTruncated},
		"longer file":     {func(w http.ResponseWriter, _ *http.Request) { whole(w, append(clone(spb), 1)) }, bundle.ErrLength},
		"shorter file":    {func(w http.ResponseWriter, _ *http.Request) { whole(w, spb[:len(spb)-1]) }, bundle.ErrTruncated},
		"huge Content-Length": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9223372036854775807")
			_, _ = w.Write(spb)
		}, bundle.ErrLength},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			flush(w)
			_, _ = w.Write(spb)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, bundle.ErrLength},
		"flipped bit": {func(w http.ResponseWriter, r *http.Request) {
			b := clone(spb)
			b[len(b)/2] ^= 1
			static(w, r, b)
		}, bundle.ErrChunk},
	}
}

func TestI1ServersThatDoNotWhatTheyShould(t *testing.T) {
	t.Parallel()
	for name, tc := range misbehaving(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, s := server(t, tc.serve, nil)
			img, err := s.Fetch(t.Context(), url, "", nil)
			switch {
			case tc.want != "" && tc.want != bundle.ErrTruncated:
				refused(t, s, err, tc.want)
			case tc.want != "": // the part file may stay: it is a connection's fault until proved otherwise
				if !errors.Is(err, tc.want) || len(s.List()) != 0 {
					t.Errorf("got %v and %v installed, want %s", err, s.List(), tc.want)
				}
			case err != nil:
				t.Errorf("fetch: %v", err)
			default:
				if err := s.Verify(t.Context(), img); err != nil {
					t.Errorf("verify: %v", err)
				}
			}
		})
	}
}

// redirection is where a server sends its client, and how often.
type redirection struct {
	to   string
	hops int32
	want bundle.Code
}

// redirections are row I2, by a server at url.
func redirections(url string) map[string]redirection {
	return map[string]redirection{
		"six hops":            {url, 6, bundle.ErrTransfer},
		"endless":             {url, 1 << 20, bundle.ErrTransfer},
		"to http":             {strings.Replace(url, "https", "http", 1), 1, bundle.ErrTransfer},
		"to a file":           {"file:///etc/passwd", 1, bundle.ErrTransfer},
		"with credentials":    {strings.Replace(url, "://", "://a:b@", 1), 1, bundle.ErrTransfer},
		"to another loopback": {"https://127.0.0.2/x", 1, bundle.ErrTransfer},
		"to the link":         {"https://169.254.169.254/x", 1, bundle.ErrTransfer},
		"to localhost":        {"https://localhost/x", 1, bundle.ErrTransfer},
		"to ::1":              {"https://[::1]/x", 1, bundle.ErrTransfer},
	}
}

func TestI2RedirectsAreFollowedWithinLimits(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	var to atomic.Value
	var hops atomic.Int32
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			t.Error("credentials were sent")
		}
		if hops.Add(-1) >= 0 {
			http.Redirect(w, r, to.Load().(string), http.StatusFound)
			return
		}
		static(w, r, spb)
	}
	url, s := server(t, handler, nil)
	for name, tc := range redirections(url) {
		to.Store(tc.to)
		hops.Store(tc.hops)
		_, err := s.Fetch(t.Context(), url, "", nil)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
		empty(t, s)
	}
	to.Store(url)
	hops.Store(5)
	if _, err := s.Fetch(t.Context(), url, "", nil); err != nil {
		t.Errorf("five hops: %v", err)
	}
}
