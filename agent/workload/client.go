package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// SocketPath is where a module finds its socket.
const SocketPath = "/run/sandpiper/module.sock"

// Client is a module's side of its socket: what the command line offers inside a module. Safe for concurrent use.
type Client struct {
	path string
	http *http.Client
}

// AnswerError is an answer that is not a success.
type AnswerError struct {
	Status  int    // of HTTP
	Message string // in the server's words
}

// Error is the server's words.
func (e *AnswerError) Error() string { return fmt.Sprintf("%s (status %d)", e.Message, e.Status) }

// Dial makes a client of the socket at path. It connects when it is used.
func Dial(path string) *Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		MaxIdleConns:    2,
		IdleConnTimeout: idleTime / 2,
	}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Send publishes body on an output. It returns when the message is on disk. The bag may hold system properties by their $.-keys;
// contentType may be empty.
func (c *Client) Send(ctx context.Context, output string, bag iothub.Bag, contentType string, body []byte) error {
	path := "/v1/messages/outputs/" + url.PathEscape(output)
	if len(bag) > 0 {
		path += "?" + bag.String()
	}
	_, err := c.post(ctx, path, contentType, body)
	return err
}

// Receive calls fn for each message to the module's inputs, one at a time, until ctx ends or fn returns an error, which it returns.
// A message is acknowledged when fn returns nil; if fn takes longer than ackTime (0 = 30 s) the message comes again.
func (c *Client) Receive(ctx context.Context, ackTime time.Duration, fn func(Input) error) error {
	path := "/v1/messages/inputs"
	if ackTime > 0 {
		path += "?ackTimeoutInSeconds=" + strconv.FormatInt(int64((ackTime+time.Second-1)/time.Second), 10)
	}
	return c.stream(ctx, path, func(doc json.RawMessage) error {
		var in Input
		if err := json.Unmarshal(doc, &in); err != nil {
			return fmt.Errorf("decode input: %w", err)
		}
		if err := fn(in); err != nil {
			return err
		}
		_, err := c.post(ctx, "/v1/messages/inputs/"+url.PathEscape(in.ID)+"/ack", "", nil)
		var late *AnswerError
		if errors.As(err, &late) && late.Status == http.StatusNotFound {
			return nil // too late: it comes again
		}
		return err
	})
}

// Twin returns {"desired":{…},"reported":{…}}, each with $version.
func (c *Client) Twin(ctx context.Context) (json.RawMessage, error) {
	body, _, err := c.exchange(ctx, http.MethodGet, "/v1/twin", "", nil)
	return body, err
}

// Report merges patch into the reported properties and returns their new version.
func (c *Client) Report(ctx context.Context, patch json.RawMessage) (version int64, err error) {
	_, header, err := c.exchange(ctx, http.MethodPatch, "/v1/twin", typeJSON, patch)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(header.Get(headerVersion), 10, 64)
}

// Desired calls fn with the desired properties and then with each patch to them, until ctx ends or fn returns an error, which it
// returns. With since > 0 it begins with what changed since that version.
func (c *Client) Desired(ctx context.Context, since int64, fn func(patch json.RawMessage) error) error {
	path := "/v1/twin/desired"
	if since > 0 {
		path += "?since=" + strconv.FormatInt(since, 10)
	}
	return c.stream(ctx, path, fn)
}

// Methods answers direct methods with fn, one at a time, until ctx ends.
func (c *Client) Methods(ctx context.Context, fn func(Call) iothub.MethodResult) error {
	return c.stream(ctx, "/v1/methods", func(doc json.RawMessage) error {
		var call Call
		if err := json.Unmarshal(doc, &call); err != nil {
			return fmt.Errorf("decode call: %w", err)
		}
		result := fn(call)
		path := "/v1/methods/" + url.PathEscape(call.ID) + "?status=" + strconv.Itoa(result.Status)
		_, err := c.post(ctx, path, typeJSON, result.Payload)
		var late *AnswerError
		if errors.As(err, &late) && late.Status == http.StatusNotFound {
			return nil // the caller has given up
		}
		return err
	})
}

// Call calls a direct method of another module; an empty device is this one.
func (c *Client) Call(ctx context.Context, target iothub.ID, req iothub.MethodRequest) (iothub.MethodResult, error) {
	query := url.Values{}
	if target.Device != "" {
		query.Set("device", target.Device)
	}
	if target.Module != "" {
		query.Set("module", target.Module)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return iothub.MethodResult{}, err
	}
	raw, err := c.post(ctx, "/v1/methods/call?"+query.Encode(), typeJSON, body)
	if err != nil {
		return iothub.MethodResult{}, err
	}
	var result iothub.MethodResult
	if err := json.Unmarshal(raw, &result); err != nil {
		return iothub.MethodResult{}, fmt.Errorf("decode answer: %w", err)
	}
	return result, nil
}

// Health reports how the module is.
func (c *Client) Health(ctx context.Context, report Health) error {
	body, err := json.Marshal(report)
	if err != nil {
		return err
	}
	_, err = c.post(ctx, "/v1/health", typeJSON, body)
	return err
}

func (c *Client) post(ctx context.Context, path, contentType string, body []byte) ([]byte, error) {
	raw, _, err := c.exchange(ctx, http.MethodPost, path, contentType, body)
	return raw, err
}

// exchange makes one request and reads the whole answer.
func (c *Client) exchange(ctx context.Context, method, path, contentType string, body []byte) ([]byte, http.Header, error) {
	resp, err := c.request(ctx, method, path, contentType, body)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("read answer: %w", err)
	}
	return raw, resp.Header, nil
}

// stream calls fn for each document until the server or ctx ends it, or fn returns an error.
func (c *Client) stream(ctx context.Context, path string, fn func(doc json.RawMessage) error) error {
	resp, err := c.request(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var doc json.RawMessage
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return ctx.Err()
		} else if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if err := fn(doc); err != nil {
			return err
		}
	}
}

// noSocket is the path of a socket that is not there.
type noSocket string

func (e noSocket) Error() string {
	if os.Getenv("IOTEDGE_MODULEID") != "" {
		return fmt.Sprintf("the agent did not answer at %s, do it again: it is away for a moment", string(e))
	}
	return fmt.Sprintf("there is no %s, the socket of a module: this works inside one, or where --socket names it", string(e))
}

func (noSocket) Unwrap() error { return fs.ErrNotExist }

// request sends a request; an answer that is no success is an [AnswerError].
func (c *Client) request(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://module"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSocket(c.path)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok && ctx.Err() == nil {
		return nil, fmt.Errorf("the agent did not answer at %s, do it again: %w", c.path, wrapped.Err)
	} else if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxPatch))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &said) != nil || said.Message == "" {
		said.Message = http.StatusText(resp.StatusCode)
	}
	return nil, &AnswerError{Status: resp.StatusCode, Message: said.Message}
}
