package checkup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// Level says how much a finding matters.
type Level string

// The levels. Only Bad means that something the configuration asks for does not work.
const (
	Well    Level = "ok"
	Unknown Level = "unknown" // it cannot be told here; What says why
	Warning Level = "warning" // it works, and will not for ever or not in every case
	Bad     Level = "bad"
)

// Finding is one thing that was looked at.
type Finding struct {
	Area  string `json:"area"` // configuration, kernel, clock, disk, keys, link, watchdog, …
	Level Level  `json:"level"`
	What  string `json:"what"`         // what was seen, one line
	Do    string `json:"do,omitempty"` // what to do about it; empty when all is well
}

// Area looks at one part of the device.
type Area struct {
	Name string
	Look func(ctx context.Context, say func(Level, string, string)) // say takes level, what was seen, and what to do
}

// Config says what this device is meant to be. The zero value is a standalone device of this machine.
type Config struct {
	StateDir, RunDir string
	MinFree          int64 // bytes of StateDir's partition that others are to have

	Hub         string           // "" = standalone: there is no link to look at
	MQTT, HTTPS string           // host:port where the hub is reached; default {Hub}:8883 and {Hub}:443
	Roots       *x509.CertPool   // trust for the hub; nil = the system's
	Certificate *tls.Certificate // the device's own; nil = it has a key

	Signers int      // keys that bundles may be signed with
	Kernel  []string // what sandboxes miss in this kernel, one line each with its remedy

	More []Area // what the caller looks at by itself, after the others

	Root string           // where the system's files are; default "/"
	Now  func() time.Time // default time.Now
}

// Run asks every area in turn and hands out what it finds. It ends early only with ctx.
func Run(ctx context.Context, c Config, found func(Finding)) {
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	areas := append([]Area{
		{"kernel", c.kernel}, {"clock", c.clock}, {"disk", c.disk}, {"keys", c.keys}, {"watchdog", c.watchdog}, {"link", c.link},
	}, c.More...)
	for _, a := range areas {
		if ctx.Err() != nil {
			return
		}
		a.Look(ctx, func(level Level, what, do string) { found(Finding{a.Name, level, what, do}) })
	}
}

// kernel tells what sandboxes miss.
func (c Config) kernel(_ context.Context, say func(Level, string, string)) {
	for _, line := range c.Kernel {
		what, do := cutRemedy(line)
		say(Warning, what, do)
	}
	if len(c.Kernel) == 0 {
		say(Well, "it has all that sandboxes use", "")
	}
}

// keys tells whether anything signed can be installed.
func (c Config) keys(_ context.Context, say func(Level, string, string)) {
	if c.Signers == 0 {
		say(Warning, "no key of a signer is installed: no bundle can be", "put the .pub file of sandpiper-bundle keygen into /etc/sandpiper/keys, or name it in bundles.trusted_keys")
	} else {
		say(Well, fmt.Sprintf("keys of %d signers of bundles", c.Signers), "")
	}
	if c.Certificate != nil {
		c.expiry(say, "the device's certificate", c.Certificate.Leaf, "have it renewed: the hub refuses it from then on")
	}
}

// expiry tells how long a certificate is good for.
func (c Config) expiry(say func(Level, string, string), whose string, cert *x509.Certificate, do string) {
	const soon = 30 * 24 * time.Hour
	if cert == nil {
		return
	}
	now, until := c.Now(), cert.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case now.Before(cert.NotBefore):
		say(Bad, fmt.Sprintf("%s is not valid before %s, and the clock says %s", whose, cert.NotBefore.UTC().Format(time.DateOnly), now.UTC().Format(time.DateOnly)), "set the clock")
	case now.After(cert.NotAfter):
		say(Bad, fmt.Sprintf("%s was valid until %s", whose, until), do)
	case cert.NotAfter.Sub(now) < soon:
		say(Warning, fmt.Sprintf("%s is valid until %s only", whose, until), do)
	default:
		say(Well, fmt.Sprintf("%s is valid until %s", whose, until), "")
	}
}
