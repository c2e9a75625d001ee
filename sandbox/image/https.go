package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

const (
	maxRedirects  = 5
	answerTimeout = 30 * time.Second // to the first byte of an answer: a static file needs none of it
	slowest       = 1 << 10          // bytes per second below which a transfer counts as stalled
	userAgent     = "sandpiper"
)

// errConnection marks errors that another connection may not have.
var errConnection = errors.New("connection")

// errStalled is the cause when a transfer brought too little for too long.
var errStalled = errors.New("stalled")

// httpsSource reads a bundle from a static web server, with Range requests where it was cut.
type httpsSource struct {
	client *http.Client
	url    *url.URL
	stall  time.Duration
	meter  *meter
	etag   string // strong, of the file the transfer began with
}

func (h *httpsSource) transient() bool { return true }

func (h *httpsSource) validator() string { return h.etag }

func (h *httpsSource) validate(etag string) { h.etag = etag }

func (h *httpsSource) sibling(name string) source {
	u := *h.url
	u.Path, u.RawPath = path.Join(path.Dir(u.Path), name), ""
	return &httpsSource{client: h.client, url: &u, stall: h.stall, meter: h.meter}
}

func (h *httpsSource) open(ctx context.Context, from, to int64) (io.ReadCloser, bool, error) {
	pass, err := h.meter.pass(ctx, h.url)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := watch(cancel, h.stall, h.meter.slowest())
	body, fromStart, err := h.request(ctx, from, to, w, pass)
	if err != nil {
		w.stop()
		if errors.Is(context.Cause(ctx), errStalled) {
			err = fmt.Errorf("%w: %w", errConnection, errStalled)
		}
		cancel(nil)
	}
	return body, fromStart, err
}

func (h *httpsSource) request(ctx context.Context, from, to int64, w *watchdog, pass *pass) (io.ReadCloser, bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url.String(), nil)
	if err != nil {
		return nil, false, fmt.Errorf("request: %w", err)
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept-Encoding", "identity")
	ranged := from > 0 || to != toEnd
	if ranged {
		last := ""
		if to != toEnd {
			last = strconv.FormatInt(to-1, 10)
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%s", from, last))
		if h.etag != "" {
			req.Header.Set("If-Range", h.etag)
		}
	}
	client := *h.client
	client.CheckRedirect = checkRedirect
	resp, err := client.Do(req)
	if err != nil {
		return nil, false, requestError(err)
	}
	fromStart, err := h.judge(resp, from, ranged)
	if err != nil {
		_ = resp.Body.Close()
		return nil, false, err
	}
	if tag := resp.Header.Get("ETag"); strings.HasPrefix(tag, `"`) && len(tag) < maxETag {
		h.etag = tag
	}
	return &httpsBody{resp: resp, ctx: ctx, watch: w, pass: pass}, fromStart, nil
}

// maxETag bounds a validator that is sent back and kept, in bytes.
const maxETag = 256

// judge says what an answer to a request from offset on is. Nothing in it is believed: the chunks' digests decide.
func (h *httpsSource) judge(resp *http.Response, offset int64, ranged bool) (fromStart bool, err error) {
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return false, bundle.Reject(bundle.ErrTransfer, "the server sends the bundle with Content-Encoding %q: serve it as it is", enc)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return ranged, nil
	case code == http.StatusPartialContent && ranged:
		if got := resp.Header.Get("Content-Range"); !startsAt(got, offset) {
			return false, bundle.Reject(bundle.ErrTransfer, "the server answers a request from byte %d with Content-Range %q: use a server that does what HTTP says", offset, got)
		}
		return false, nil
	case code == http.StatusRequestedRangeNotSatisfiable:
		h.etag = ""
		return false, bundle.Reject(bundle.ErrChanged, "the bundle on the server has become shorter than %d bytes: it is fetched again from its start", offset)
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return false, fmt.Errorf("%w: the server answers %s", errConnection, resp.Status)
	}
	return false, bundle.Reject(bundle.ErrTransfer, "the server answers %s: correct the URL, or put the bundle there", resp.Status)
}

// startsAt is whether "bytes 100-199/200" begins at offset.
func startsAt(contentRange string, offset int64) bool {
	return strings.HasPrefix(contentRange, "bytes "+strconv.FormatInt(offset, 10)+"-")
}

// requestError sorts what may go away from what will not.
func requestError(err error) error {
	if bundle.CodeOf(err) != "" {
		return err
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &bundle.Error{Code: bundle.ErrTransfer, Why: fmt.Sprintf("the server's certificate is not trusted (%v): set bundles.trusted_ca, or correct this device's clock", cert.Err), Err: err}
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the URL stands before it already
	}
	return fmt.Errorf("%w: %w", errConnection, err)
}

// checkRedirect follows up to five redirects, to https only, and never from elsewhere into this device or onto its link.
func checkRedirect(req *http.Request, via []*http.Request) error {
	from, to := via[0].URL, req.URL
	switch {
	case len(via) > maxRedirects:
		return bundle.Reject(bundle.ErrTransfer, "the server redirects more than %d times: correct the URL", maxRedirects)
	case to.Scheme != "https":
		return bundle.Reject(bundle.ErrTransfer, "the server redirects to %s, which is not https: correct the URL", to.Scheme)
	case to.User != nil:
		return bundle.Reject(bundle.ErrTransfer, "the server redirects to a URL with credentials: correct the URL")
	case to.Hostname() != from.Hostname() && nearby(to.Hostname()):
		return bundle.Reject(bundle.ErrTransfer, "the server redirects to %s, which is this device or its link: name that host in the URL if it is meant", to.Host)
	}
	return nil
}

// nearby reports names and addresses that mean this device or its link, as far as that shows without a resolver.
func nearby(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsUnspecified() || ip.IsMulticast())
}

// httpsBody is an answer whose errors are marked and whose pace is watched.
type httpsBody struct {
	resp  *http.Response
	ctx   context.Context //nolint:containedctx // only its cause is asked, for the error of a stalled read
	watch *watchdog
	pass  *pass
}

func (b *httpsBody) Read(p []byte) (int, error) {
	n, err := b.resp.Body.Read(p[:min(len(p), mostAtOnce)])
	b.watch.bytes.Add(int64(n))
	if perr := b.pass.took(b.ctx, n); perr != nil {
		return n, perr
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
		err = fmt.Errorf("%w: %w", errConnection, err)
	}
	return n, err
}

func (b *httpsBody) Close() error {
	b.watch.stop()
	b.watch.cancel(nil)
	b.pass.done()
	return b.resp.Body.Close()
}

// size is the length of the whole file, as the answer says.
func (b *httpsBody) size() (int64, bool) {
	if b.resp.StatusCode == http.StatusOK {
		return b.resp.ContentLength, b.resp.ContentLength >= 0
	}
	_, total, ok := strings.Cut(b.resp.Header.Get("Content-Range"), "/")
	n, err := strconv.ParseInt(total, 10, 64)
	return n, ok && err == nil && n >= 0
}

// watchdog cancels a transfer that brings less than the slowest pace over a window.
type watchdog struct {
	bytes  atomic.Int64
	cancel context.CancelCauseFunc
	done   chan struct{}
	ended  chan struct{}
}

func watch(cancel context.CancelCauseFunc, window time.Duration, slowest int64) *watchdog {
	w := &watchdog{cancel: cancel, done: make(chan struct{}), ended: make(chan struct{})}
	least := int64(window.Seconds() * float64(slowest))
	go func() {
		defer close(w.ended)
		tick := time.NewTicker(window)
		defer tick.Stop()
		for {
			select {
			case <-w.done:
				return
			case <-tick.C:
				if w.bytes.Swap(0) < least {
					cancel(errStalled)
					return
				}
			}
		}
	}()
	return w
}

// stop ends the goroutine and waits for it; calling it again does nothing.
func (w *watchdog) stop() {
	select {
	case <-w.done:
	default:
		close(w.done)
	}
	<-w.ended
}
