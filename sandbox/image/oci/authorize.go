package oci

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// authorize answers a registry's challenge with an Authorization header.
func (c *Client) authorize(ctx context.Context, e endpoint, h http.Header) (string, error) {
	login, known := c.loginFor(e.host)
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(login.User+":"+string(login.Password)))
	var offered []string
	for _, challenge := range h.Values("WWW-Authenticate") {
		scheme, params := parseChallenge(challenge)
		switch offered = append(offered, scheme); {
		case strings.EqualFold(scheme, "Bearer"):
			if !known {
				basic = ""
			}
			return c.token(ctx, e, params, basic)
		case strings.EqualFold(scheme, "Basic") && known:
			return basic, nil
		}
	}
	if !known {
		return "", bundle.Reject(bundle.ErrTransfer, "%s wants to know who asks: add it to registryCredentials", e.host)
	}
	return "", bundle.Reject(bundle.ErrTransfer, "%s wants %.80q, this agent knows Basic and Bearer", e.host, offered)
}

// token asks the place that a registry names. It gets the registry's login, if there is one: that is what it is for.
func (c *Client) token(ctx context.Context, e endpoint, params map[string]string, basic string) (string, error) {
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" || realm.User != nil || realm.Scheme != "https" && realm.Scheme != e.scheme {
		return "", bundle.Reject(bundle.ErrTransfer, "%s names %.100q as the place for tokens, want an https:// URL", e.host, params["realm"])
	}
	q := realm.Query()
	if service := params["service"]; service != "" {
		q.Set("service", service)
	}
	q.Set("scope", "repository:"+e.path+":pull")
	realm.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err != nil {
		return "", fmt.Errorf("request: %w", err)
	}
	req.Header.Set("User-Agent", userAgent)
	if basic != "" {
		req.Header.Set("Authorization", basic)
	}
	resp, err := c.do(e.http, req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return "", refusal(endpoint{host: realm.Host, path: e.path}, "token", resp)
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxDocument)).Decode(&answer); err != nil {
		return "", fmt.Errorf("%w: token of %s: %w", ErrConnection, realm.Host, err)
	}
	if answer.Token == "" {
		answer.Token = answer.AccessToken
	}
	if answer.Token == "" || strings.ContainsAny(answer.Token, "\r\n") {
		return "", bundle.Reject(bundle.ErrTransfer, "%s answers without a token", realm.Host)
	}
	return "Bearer " + answer.Token, nil
}

// parseChallenge reads `Bearer realm="…",service="…"`.
func parseChallenge(text string) (scheme string, params map[string]string) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	params = make(map[string]string)
	for rest != "" && len(params) < 16 {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		key = strings.ToLower(strings.Trim(key, " ,"))
		var value string
		if quoted, ok := strings.CutPrefix(after, `"`); ok {
			value, rest, _ = strings.Cut(quoted, `"`)
		} else {
			value, rest, _ = strings.Cut(after, ",")
		}
		params[key] = strings.TrimSpace(value)
	}
	return scheme, params
}

// redirect decides whether a registry's redirect is followed. Who asks is told to the first host only.
func redirect(next *http.Request, via []*http.Request, first *http.Request) error {
	u := next.URL
	switch {
	case len(via) > maxRedirects:
		return bundle.Reject(bundle.ErrTransfer, "%s redirects more than %d times", first.URL.Host, maxRedirects)
	case u.Scheme != "https" && u.Scheme != first.URL.Scheme || u.User != nil:
		return bundle.Reject(bundle.ErrTransfer, "%s redirects to %s://%s, want https://", first.URL.Host, u.Scheme, u.Host)
	case private(u.Hostname()) && !private(first.URL.Hostname()):
		return bundle.Reject(bundle.ErrTransfer, "%s redirects to %s, which is this device or its neighbour: name that as a mirror if it is meant", first.URL.Host, u.Host)
	case u.Host != first.URL.Host || u.Scheme != first.URL.Scheme:
		next.Header.Del("Authorization")
	}
	return nil
}

// private tells addresses of this device and of its own links by how they are written.
func private(host string) bool {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host) != nil
	}
	a = a.Unmap()
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsPrivate()
}
