package control

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
	"os"
	"syscall"
	"time"
)

// Client asks a running agent. The zero value is of no use; see [Dial].
type Client struct {
	path     string
	http     *http.Client
	patience time.Duration // for what an agent that is well answers at once
}

// patience is long enough for a slow board under load, and short enough for a script over many devices.
const patience = 30 * time.Second

// Dial returns a client of the agent whose control socket is at path. It connects on the first question.
func Dial(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, patience: patience, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status asks for the agent at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var doc Status
	asking, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	err := c.ask(asking, http.MethodGet, "/status", nil, &doc)
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		err = said{fmt.Sprintf("the agent at %s does not answer within %s; it may hang: see its log", c.path, c.patience), asking.Err()}
	}
	return doc, err
}

// Verb starts, stops, restarts, pauses or resumes a module and returns when that is done.
func (c *Client) Verb(ctx context.Context, verb, module string) error {
	return c.ask(ctx, http.MethodPost, "/modules/"+url.PathEscape(module)+"/"+verb, nil, &struct{}{})
}

// Why asks for one line that says why a module is or is not running.
func (c *Client) Why(ctx context.Context, module string) (Reason, error) {
	var doc Reason
	err := c.ask(ctx, http.MethodGet, "/modules/"+url.PathEscape(module)+"/why", nil, &doc)
	return doc, err
}

// Stats asks what running modules use now; no name = all of them.
func (c *Client) Stats(ctx context.Context, module string) ([]Usage, error) {
	var doc []Usage
	err := c.ask(ctx, http.MethodGet, "/stats?module="+url.QueryEscape(module), nil, &doc)
	return doc, err
}

// Twin asks for a module's twin.
func (c *Client) Twin(ctx context.Context, module string) (Twin, error) {
	var doc Twin
	err := c.ask(ctx, http.MethodGet, "/twins/"+url.PathEscape(module), nil, &doc)
	return doc, err
}

// Deployment asks for the manifest in force.
func (c *Client) Deployment(ctx context.Context) (json.RawMessage, error) {
	var doc json.RawMessage
	err := c.ask(ctx, http.MethodGet, "/deployment", nil, &doc)
	return doc, err
}

// Plan asks what applying a manifest would do.
func (c *Client) Plan(ctx context.Context, manifest []byte) (Plan, error) {
	var doc Plan
	err := c.ask(ctx, http.MethodPost, "/deployment/plan", manifest, &doc)
	return doc, err
}

// Apply makes a manifest the deployment of a standalone device.
func (c *Client) Apply(ctx context.Context, manifest []byte) (Plan, error) {
	var doc Plan
	err := c.ask(ctx, http.MethodPost, "/deployment", manifest, &doc)
	return doc, err
}

// Metrics copies what is counted to w.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	body, err := c.open(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	return err
}

func (c *Client) ask(ctx context.Context, method, path string, body []byte, into any) error {
	r, err := c.open(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := json.NewDecoder(r).Decode(into); err != nil {
		return fmt.Errorf("answer of the agent: %w", err)
	}
	return nil
}

func (c *Client) open(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	res, err := c.answer(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// answer is an answer that is a success.
func (c *Client) answer(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	return nil, refusal(res)
}

// refusal is what an answer that is no success says.
func refusal(res *http.Response) error {
	var f fault
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&f); err != nil || f.Message == "" {
		return fmt.Errorf("agent answered %s", res.Status)
	}
	return errors.New(f.Message)
}

// said is an error in words for an operator. Programs tell it by its cause.
type said struct {
	words string
	cause error
}

func (s said) Error() string { return s.words }
func (s said) Unwrap() error { return s.cause }

// explain is [Explain] for this client's socket.
func (c *Client) explain(err error) error { return Explain(c.path, err) }

// Explain says why the agent could not be reached at its socket, and what to do.
func Explain(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EINVAL): // the last: too long a path for a socket
		return said{fmt.Sprintf("no agent answers at %s; start it with `sandpiper agent`, or name its run_dir with --run-dir", path), err}
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("not allowed to reach the agent at %s; run this as root", path)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		if os.Geteuid() != 0 {
			return fmt.Errorf("the agent at %s closed the connection; it answers root and its own user only", path)
		}
		return said{"the agent ended before it answered; what it had begun goes on with the next one, `sandpiper status` says how far it is", err}
	}
	return err
}
