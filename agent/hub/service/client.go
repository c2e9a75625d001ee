package service

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Files that a hub writes into its directory for local clients.
const (
	connectionFile = "iothubowner.connection"
	caFile         = "ca.pem"
	addressFile    = "https.address"
)

const (
	tokenLife = time.Hour
	maxAnswer = 64 << 20 // bytes: the listing of a large hub
)

// Config of a Client.
type Config struct {
	Connection iothub.Secret // HostName=…;SharedAccessKeyName=…;SharedAccessKey=…
	CA         []byte        // PEM of the authority to trust; empty = the system's
	Address    string        // host:port to dial; empty = the host name, port 443
	Now        func() time.Time
}

// Client calls one hub.
type Client struct {
	http   *http.Client
	host   string
	policy string
	key    iothub.Key
	ca     []byte
	now    func() time.Time
}

// Open makes a client for the hub that keeps its state in dir on this machine.
func Open(dir string) (*Client, error) {
	connection, err := os.ReadFile(filepath.Join(dir, connectionFile))
	if err != nil {
		return nil, fmt.Errorf("no hub in %s (%w): start one with `sandpiper-hub serve --dir %s`", dir, err, dir)
	}
	ca, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil {
		return nil, err
	}
	address, err := os.ReadFile(filepath.Join(dir, addressFile))
	if err != nil {
		return nil, err
	}
	return New(Config{Connection: iothub.Secret(strings.TrimSpace(string(connection))), CA: ca, Address: local(strings.TrimSpace(string(address)))})
}

// local is a listener's address as one dials it from the same machine.
func local(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// New makes a client.
func New(cfg Config) (*Client, error) {
	c := &Client{ca: cfg.CA, now: cfg.Now}
	if c.now == nil {
		c.now = time.Now
	}
	if err := c.parse(cfg.Connection.Reveal()); err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: hostOnly(c.host)}
	if len(cfg.CA) > 0 {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(cfg.CA) {
			return nil, errors.New("hub client: no certificate in the authority's PEM")
		}
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	c.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: conf,
		MaxIdleConns:    4,
		IdleConnTimeout: time.Minute,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if cfg.Address != "" {
				addr = cfg.Address
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}}
	return c, nil
}

func hostOnly(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// parse reads a service's connection string. Errors do not repeat the key.
func (c *Client) parse(text string) error {
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "":
		case "hostname":
			c.host = value
		case "sharedaccesskeyname":
			c.policy = value
		case "sharedaccesskey":
			c.key, err = iothub.ParseKey(value)
		default:
			err = fmt.Errorf("unknown member %q", name)
		}
		if err != nil {
			return fmt.Errorf("connection string: %w", err)
		}
	}
	if c.host == "" || c.policy == "" || len(c.key) == 0 {
		return errors.New("connection string: HostName, SharedAccessKeyName and SharedAccessKey are needed")
	}
	return nil
}

// Host is the hub's host name, as it stands in connection strings.
func (c *Client) Host() string { return c.host }

// CA is the PEM of the authority that devices must trust; nil when it is the system's.
func (c *Client) CA() []byte { return c.ca }

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// open makes a request and returns its answer, whose body the caller closes; a refusal is an *iothub.Error.
func (c *Client) open(ctx context.Context, method, path string, query url.Values, header http.Header, body []byte) (*http.Response, error) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("api-version", iothub.APIVersion)
	req, err := http.NewRequestWithContext(ctx, method, "https://"+c.host+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	token, err := iothub.MintToken(c.host, c.policy, c.now().Add(tokenLife), c.key.Signer())
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", token.Reveal())
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, iothub.MaxErrorBody))
	return nil, errors.Join(iothub.ParseError(resp.StatusCode, raw), err, resp.Body.Close())
}

// call makes a request whose answer is one document; nil when it has none.
func (c *Client) call(ctx context.Context, method, path, match string, body any) (json.RawMessage, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	header := http.Header{}
	if match != "" {
		header.Set("If-Match", `"`+match+`"`)
	}
	resp, err := c.open(ctx, method, path, nil, header, text)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return raw, nil
}
