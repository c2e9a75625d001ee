package oci

import (
	"log/slog"
)

// Password of a registry. It prints as nothing.
type Password string

const hidden = "(hidden)"

// String hides it.
func (Password) String() string { return hidden }

// GoString hides it.
func (Password) GoString() string { return hidden }

// LogValue hides it.
func (Password) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides it.
func (Password) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Login is a user of a registry. It is sent to the registry of that address and to the place it names for tokens, to nobody else.
type Login struct {
	Address  string // host of the registry, with a port if it has one
	User     string
	Password Password
}

// loginFor finds the login of a host.
func (c *Client) loginFor(host string) (Login, bool) {
	if c.cfg.Logins == nil {
		return Login{}, false
	}
	for _, l := range c.cfg.Logins() {
		r := endpointHost(l.Address)
		if r == host || host == dockerEndpoint && (r == dockerHost || r == "index."+dockerHost) {
			return l, true
		}
	}
	return Login{}, false
}
