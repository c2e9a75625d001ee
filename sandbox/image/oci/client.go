package oci

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// ClientConfig of a Client. The zero value works.
type ClientConfig struct {
	HTTP       *http.Client   // for every registry that has none of its own; default: the system's roots
	Registries []Registry     // what is to be known about some of them
	Logins     func() []Login // asked whenever a registry wants to know who asks; default: nobody
	Body       Wrap           // rates and bounds of what blobs are read from; default: none
	Stall      time.Duration  // a blob that brings less than 1 KiB/s for so long is cut; default 60 s
	Logger     *slog.Logger   // default: discard
}

// Wrap puts something around the body that a host sends, or refuses it.
type Wrap func(ctx context.Context, host string, body io.Reader) (io.Reader, error)

// Registry is what a configuration says about one, or about a part of one. The longest prefix counts.
type Registry struct {
	Prefix  string       // host[:port][/path] that references begin with
	Plain   bool         // it speaks http, without TLS: for a registry on this device or its own network
	Mirrors []string     // host[:port][/path] asked first, in order; what is behind the prefix follows
	HTTP    *http.Client // for this registry and its mirrors
}

// Client reads from registries by the distribution API. Its methods may be called from any goroutine.
type Client struct {
	cfg ClientConfig

	mu     sync.Mutex        // guards what follows
	tokens map[string]string // Authorization header by endpoint and repository
}

const (
	dockerEndpoint = "registry-1.docker.io"
	defaultStall   = time.Minute
	answerTimeout  = 30 * time.Second
	userAgent      = "sandpiper"
	maxRedirects   = 5
)

// ErrConnection marks errors that another try may not have.
var ErrConnection = errors.New("connection")

// HTTPClient is what images of either kind are fetched with: it trusts roots (nil: the system's), reads at most 64 KiB of headers, and has
// no deadline for a whole transfer: a slow link may need hours, and stalls are cut by who reads.
func HTTPClient(roots *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: answerTimeout,
		ResponseHeaderTimeout: answerTimeout, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true, DisableCompression: true,
	}}
}

// NewClient returns a client; it connects when it is asked for something.
func NewClient(cfg ClientConfig) *Client {
	if cfg.HTTP == nil {
		cfg.HTTP = HTTPClient(nil)
	}
	if cfg.Stall <= 0 {
		cfg.Stall = defaultStall
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: cfg, tokens: make(map[string]string)}
}

// Document is an index or a manifest as a registry gave it.
type Document struct {
	MediaType string
	Digest    Digest // of Text
	Text      []byte
}

// Manifest asks for what a reference names: by its digest if it has one, else by its tag. What comes by digest was compared with it.
func (c *Client) Manifest(ctx context.Context, r Reference) (Document, error) {
	what := r.Tag
	if !r.Digest.IsZero() {
		what = r.Digest.String()
	}
	var doc Document
	err := c.each(ctx, r, func(e endpoint) error {
		resp, err := c.get(ctx, e, "manifests/"+what, 0)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
		switch {
		case err != nil:
			return fmt.Errorf("%w: read manifest: %w", ErrConnection, err)
		case len(text) > maxDocument:
			return bundle.Reject(bundle.ErrOCI, "%s answers with a manifest of more than %d bytes", e.host, maxDocument)
		}
		mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
		doc = Document{MediaType: strings.TrimSpace(mediaType), Digest: sha256.Sum256(text), Text: text}
		if !r.Digest.IsZero() && doc.Digest != r.Digest {
			return bundle.Reject(bundle.ErrDigest, "%s answers with %v where %v is asked for", e.host, doc.Digest, r.Digest)
		}
		return nil
	})
	return doc, err
}

// Blob opens a blob from offset on. start is where it really begins: 0 when the registry does not give parts.
func (c *Client) Blob(ctx context.Context, r Reference, d Descriptor, offset int64) (body io.ReadCloser, start int64, err error) {
	err = c.each(ctx, r, func(e endpoint) error {
		ctx, cancel := context.WithCancelCause(ctx)
		resp, err := c.get(ctx, e, "blobs/"+d.Digest.String(), offset)
		if err == nil {
			start, err = judge(resp, d, offset, e.host)
			if err != nil {
				_ = resp.Body.Close()
			}
		}
		if err != nil {
			cancel(nil)
			return err
		}
		wrapped := io.Reader(resp.Body)
		if c.cfg.Body != nil {
			if wrapped, err = c.cfg.Body(ctx, e.host, wrapped); err != nil {
				_ = resp.Body.Close()
				cancel(nil)
				return err
			}
		}
		body = newStalling(ctx, cancel, resp.Body, wrapped, c.cfg.Stall)
		return nil
	})
	return body, start, err
}

// judge says where the answer to a request for a blob from offset on begins. Its content is not believed: the digest decides.
func judge(resp *http.Response, d Descriptor, offset int64, host string) (start int64, err error) {
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return 0, bundle.Reject(bundle.ErrTransfer, "%s sends blobs with Content-Encoding %.40q: serve them as they are", host, enc)
	}
	if resp.StatusCode == http.StatusPartialContent {
		if got := resp.Header.Get("Content-Range"); offset == 0 || !strings.HasPrefix(got, "bytes "+strconv.FormatInt(offset, 10)+"-") {
			return 0, bundle.Reject(bundle.ErrTransfer, "%s answers a request from byte %d with Content-Range %.40q", host, offset, got)
		}
		start = offset
	}
	if n := resp.ContentLength; n >= 0 && n != d.Size-start {
		return 0, bundle.Reject(bundle.ErrTransfer, "%s sends %d bytes of blob %v, its manifest says %d", host, n, d.Digest, d.Size-start)
	}
	return start, nil
}

// endpoint is one place that has a repository.
type endpoint struct {
	scheme, host, path string
	http               *http.Client
}

// endpoints of a reference: the mirrors of the registry with the longest prefix, and the registry itself.
func (c *Client) endpoints(r Reference) []endpoint {
	best := Registry{}
	for _, reg := range c.cfg.Registries {
		if Within(r.Repository(), reg.Prefix) && len(reg.Prefix) > len(best.Prefix) {
			best = reg
		}
	}
	client := c.cfg.HTTP
	if best.HTTP != nil {
		client = best.HTTP
	}
	var list []endpoint
	rest := strings.TrimPrefix(strings.TrimPrefix(r.Repository(), best.Prefix), "/")
	for _, mirror := range best.Mirrors {
		m := strings.TrimSuffix(mirror, "/") + "/" + rest
		if rest == "" {
			m = mirror
		}
		host, path, _ := strings.Cut(m, "/")
		list = append(list, endpoint{c.scheme(host), host, path, client})
	}
	return append(list, endpoint{c.scheme(r.Host), endpointHost(r.Host), r.Path, client})
}

// scheme is http only for a host that the configuration lists as plain.
func (c *Client) scheme(host string) string {
	for _, reg := range c.cfg.Registries {
		if prefix, _, _ := strings.Cut(reg.Prefix, "/"); prefix == host && reg.Plain {
			return "http"
		}
	}
	return "https"
}

func endpointHost(host string) string {
	if host == dockerHost {
		return dockerEndpoint
	}
	return host
}

// each asks the endpoints in order until one has what is wanted. The error is the last one's: the registry's own.
func (c *Client) each(ctx context.Context, r Reference, ask func(e endpoint) error) error {
	var err error
	list := c.endpoints(r)
	for i, e := range list {
		if err = ask(e); err == nil || ctx.Err() != nil {
			break
		}
		if i < len(list)-1 {
			c.cfg.Logger.Info("mirror of a registry did not help", "image", r.String(), "mirror", e.host, "err", err)
		}
	}
	return err
}

// get asks an endpoint, and once more with a token when it wants to know who asks.
func (c *Client) get(ctx context.Context, e endpoint, what string, offset int64) (*http.Response, error) {
	key := e.host + "/" + e.path
	for try := 0; ; try++ {
		c.mu.Lock()
		token := c.tokens[key]
		c.mu.Unlock()
		resp, err := c.request(ctx, e, what, offset, token)
		if err != nil {
			return nil, err
		}
		switch code := resp.StatusCode; {
		case code == http.StatusOK, code == http.StatusPartialContent:
			return resp, nil
		case code == http.StatusUnauthorized && try == 0:
			_ = resp.Body.Close()
			if token, err = c.authorize(ctx, e, resp.Header); err != nil {
				return nil, err
			}
			c.mu.Lock()
			c.tokens[key] = token
			c.mu.Unlock()
		default:
			_ = resp.Body.Close()
			return nil, refusal(e, what, resp)
		}
	}
}

func (c *Client) request(ctx context.Context, e endpoint, what string, offset int64, token string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.scheme+"://"+e.host+"/v2/"+e.path+"/"+what, nil)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if accept := acceptable(what); accept != "" {
		req.Header.Set("Accept", accept)
	}
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	return c.do(e.http, req)
}

// do sends a request. What says who asks stays with the host it was meant for.
func (c *Client) do(client *http.Client, req *http.Request) (*http.Response, error) {
	guarded := *client
	guarded.CheckRedirect = func(next *http.Request, via []*http.Request) error { return redirect(next, via, req) }
	resp, err := guarded.Do(req)
	if err == nil {
		return resp, nil
	}
	if _, refused := errors.AsType[*bundle.Error](err); refused || req.Context().Err() != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", ErrConnection, err)
}

// refusal says what an answer without the wanted thing means.
func refusal(e endpoint, what string, resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound:
		return bundle.Reject(bundle.ErrTransfer, "%s has no %s of %s: correct the image's name, or push it", e.host, what, e.path)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return bundle.Reject(bundle.ErrTransfer, "%s does not let this device read %s: correct registryCredentials", e.host, e.path)
	case code == http.StatusRequestedRangeNotSatisfiable:
		return bundle.Reject(bundle.ErrChanged, "%s has a shorter %s than before: it is fetched again", e.host, what)
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return fmt.Errorf("%w: %s answers %s", ErrConnection, e.host, resp.Status)
	}
	return bundle.Reject(bundle.ErrTransfer, "%s answers %.60q to a request for %s", e.host, resp.Status, what)
}

// Within tells whether a repository or host is under a prefix of names, such as "registry.example/team".
func Within(repository, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	return prefix != "" && (repository == prefix || strings.HasPrefix(repository, prefix+"/"))
}
