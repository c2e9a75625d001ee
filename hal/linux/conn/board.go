package conn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Error is a refusal of the agent. Code is one of the words of the module API: unknown, denied, busy, lease_lost,
// range, rate, nack, stuck, gone, timeout, unsupported.
type Error struct {
	Code       string `json:"code"`
	Name       string `json:"name"`   // of the resource
	Detail     string `json:"detail"` // for people
	RetryAfter int    `json:"retry_after_ms"`
}

func (e *Error) Error() string {
	s := e.Name + ": " + e.Code
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// IsCode reports whether err is a refusal of the agent with that code.
func IsCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// Board is the way to everything that the module was granted. Its methods may be called by any goroutine.
type Board struct {
	http *http.Client

	// Timeout bounds one call; 0 is 5 s. Set it before the first call.
	Timeout time.Duration
}

const (
	defaultTimeout = 5 * time.Second
	maxAnswer      = 1 << 20 // bytes; the agent's own limit of a transfer is far below
)

// Dial makes a Board for the module's socket, "/run/sandpiper/module.sock" in a sandbox, and asks the agent whether
// it serves pins at all.
func Dial(socket string) (*Board, error) {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 4,
	}
	b := &Board{http: &http.Client{Transport: t}}
	if err := b.call(http.MethodGet, "/v1/hal", nil, nil); err != nil {
		t.CloseIdleConnections()
		return nil, fmt.Errorf("dial %s: %w", socket, err)
	}
	return b, nil
}

// Close gives the connections back. What was set stays set until the module ends or its leases do.
func (b *Board) Close() error {
	b.http.CloseIdleConnections()
	return nil
}

func path(name, rest string) string { return "/v1/hal/" + url.PathEscape(name) + rest }

// call sends in as JSON and reads the answer into out; either may be nil.
func (b *Board) call(method, path string, in, out any) error {
	timeout := b.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	res, err := b.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	doc, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(doc, out); err != nil {
		return fmt.Errorf("answer to %s %s: %w", method, path, err)
	}
	return nil
}

// send returns only answers that are no refusals.
func (b *Board) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		doc, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(doc)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	var refusal struct {
		Error Error `json:"error"`
	}
	doc, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(doc, &refusal) != nil || refusal.Error.Code == "" {
		return nil, fmt.Errorf("%s %s: %s", method, path, res.Status)
	}
	return nil, &refusal.Error
}

// op is one step of a transfer; bytes travel as hex.
type op struct {
	W string `json:"w,omitempty"`
	R int    `json:"r,omitempty"`
}

type transfer struct {
	Ops []op `json:"ops"`
}

// result is the answer to a transfer: what each step read.
type result struct {
	Ops []struct {
		R string `json:"r"`
	} `json:"ops"`
}
