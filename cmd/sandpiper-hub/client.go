package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// client talks REST to a running hub as its owner.
type client struct {
	host string
	key  iothub.Key
	http *http.Client
}

// client reads how to reach the hub from its directory.
func (s *shared) client() (*client, error) {
	text, err := os.ReadFile(hub.ConnectionFile(s.dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no hub has run in %s; start one with `sandpiper-hub serve --dir %s`, or name its directory with --dir", s.dir, s.dir)
	}
	if err != nil {
		return nil, err
	}
	c := &client{}
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ";") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "HostName":
			c.host = value
		case "SharedAccessKey":
			if c.key, err = iothub.ParseKey(value); err != nil {
				return nil, fmt.Errorf("%s: %w", hub.ConnectionFile(s.dir), err)
			}
		}
	}
	address, err := os.ReadFile(hub.AddressFile(s.dir))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(hub.CAFile(s.dir))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	_, port, err := net.SplitHostPort(strings.TrimSpace(string(address)))
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort("localhost", port))
	}
	c.http = &http.Client{Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	return c, nil
}

// path joins escaped segments.
func path(segments ...string) string {
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return "/" + strings.Join(segments, "/")
}

// twinPath is a twin's, of a device or of a module.
func twinPath(device, module string) string {
	if module == "" {
		return path("twins", device)
	}
	return path("twins", device, "modules", module)
}

// ask makes one request; body and into may be nil.
func (c *client) ask(ctx context.Context, method, path string, body, into any) error {
	var raw []byte
	switch b := body.(type) {
	case nil:
	case []byte:
		raw = b
	default:
		var err error
		if raw, err = json.Marshal(b); err != nil {
			return err
		}
	}
	res, err := c.open(ctx, method, path, raw)
	if err != nil {
		return err
	}
	defer res.Close()
	if into == nil {
		return nil
	}
	return json.NewDecoder(res).Decode(into)
}

func (c *client) open(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	token, err := iothub.MintToken(c.host, hub.OwnerPolicy, time.Now().Add(time.Hour), c.key.Signer())
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+c.host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", token.Reveal())
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	if method == http.MethodDelete || method == http.MethodPatch {
		req.Header.Set("If-Match", `"*"`)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("hub %s does not answer; is `sandpiper-hub serve` running? %w", c.host, err)
	}
	if res.StatusCode < 300 {
		return res.Body, nil
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, iothub.MaxErrorBody))
	if err != nil {
		return nil, err
	}
	no := iothub.ParseError(res.StatusCode, text)
	return nil, fmt.Errorf("%s (%d)", no.Message, no.Code)
}
