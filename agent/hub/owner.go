package hub

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
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

const (
	tokenLife = time.Hour
	maxAnswer = 64 << 20 // bytes: the listing of a large hub
)

// OwnerConfig says where a hub is and who speaks. Local owners need [OpenOwner] alone.
type OwnerConfig struct {
	Connection iothub.Secret // HostName=…;SharedAccessKeyName=…;SharedAccessKey=…
	CA         []byte        // PEM of the authority to trust; empty = the system's
	Address    string        // host:port to dial; empty = the host name, port 443
	Now        func() time.Time
}

// Owner is a client of a hub's REST interface, for whoever runs the hub: commands, demonstrations, tests. The address it dials and the
// host name in tokens and certificates are two things. It needs no [Hub] in its process, and starts no goroutine of its own.
type Owner struct {
	http   *http.Client
	host   string
	policy string
	key    iothub.Key
	ca     []byte
	now    func() time.Time
}

// OpenOwner makes an owner of the hub that keeps its state in dir on this machine and is running.
func OpenOwner(dir string) (*Owner, error) {
	connection, err := os.ReadFile(ConnectionFile(dir))
	if err != nil {
		return nil, fmt.Errorf("no hub in %s (%w): start one with `sandpiper-hub serve --dir %s`", dir, err, dir)
	}
	ca, err := os.ReadFile(CAFile(dir))
	if err != nil {
		return nil, err
	}
	address, err := os.ReadFile(AddressFile(dir))
	if err != nil {
		return nil, err
	}
	return NewOwner(OwnerConfig{Connection: iothub.Secret(strings.TrimSpace(string(connection))), CA: ca, Address: local(strings.TrimSpace(string(address)))})
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

// NewOwner makes an owner.
func NewOwner(cfg OwnerConfig) (*Owner, error) {
	o := &Owner{ca: cfg.CA, now: cfg.Now}
	if o.now == nil {
		o.now = time.Now
	}
	if err := o.parse(cfg.Connection.Reveal()); err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: hostOnly(o.host)}
	if len(cfg.CA) > 0 {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(cfg.CA) {
			return nil, errors.New("hub owner: no certificate in the authority's PEM")
		}
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	o.http = &http.Client{Transport: &http.Transport{
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
	return o, nil
}

func hostOnly(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// parse reads a service's connection string. Errors do not repeat the key.
func (o *Owner) parse(text string) error {
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "":
		case "hostname":
			o.host = value
		case "sharedaccesskeyname":
			o.policy = value
		case "sharedaccesskey":
			o.key, err = iothub.ParseKey(value)
		default:
			err = fmt.Errorf("unknown member %q", name)
		}
		if err != nil {
			return fmt.Errorf("connection string: %w", err)
		}
	}
	if o.host == "" || o.policy == "" || len(o.key) == 0 {
		return errors.New("connection string: HostName, SharedAccessKeyName and SharedAccessKey are needed")
	}
	return nil
}

// Host is the hub's host name, as it stands in connection strings.
func (o *Owner) Host() string { return o.host }

// CA is the PEM of the authority that devices must trust; nil when it is the system's.
func (o *Owner) CA() []byte { return o.ca }

// Close gives up idle connections.
func (o *Owner) Close() { o.http.CloseIdleConnections() }

// open makes a request and returns its answer, whose body the caller closes; a refusal is an *iothub.Error.
func (o *Owner) open(ctx context.Context, method, path string, query url.Values, header http.Header, body []byte) (*http.Response, error) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("api-version", iothub.APIVersion)
	req, err := http.NewRequestWithContext(ctx, method, "https://"+o.host+path+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	token, err := iothub.MintToken(o.host, o.policy, o.now().Add(tokenLife), o.key.Signer())
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", token.Reveal())
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	resp, err := o.http.Do(req)
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
func (o *Owner) call(ctx context.Context, method, path, match string, body any) (json.RawMessage, error) {
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
	resp, err := o.open(ctx, method, path, nil, header, text)
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
