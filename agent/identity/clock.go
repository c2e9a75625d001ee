package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

const clockKey = "identity/clock"

// floorStep is how much hub time passes between two durable notes of it: at most 24 writes a day.
const floorStep = time.Hour

// hopAge is how long after a step of the device clock a local token of before the step is still judged by the clock it was
// minted on: the lifetime of an SDK's token.
const hopAge = time.Hour

// Clock keeps two times apart. The device clock is what the kernel says and what modules on this device see; tokens that they
// mint are judged by it. Hub time is the best guess of what the hub's clock shows; tokens for the hub and the validity of its
// certificate are judged by that. A board without a battery starts in 1970: then hub time is the latest of the build time,
// the last time the hub was heard and what it said since.
type Clock struct {
	now     func() time.Time
	elapsed func() time.Duration // since start, by a clock that nobody sets
	started time.Time            // reading of now at start
	built   time.Time            // no correct clock shows less
	docs    Docs

	mu      sync.Mutex
	floor   time.Time     // hub time at the last contact
	stored  time.Time     // the floor that is durable
	heard   bool          // there was a contact in this run
	at      time.Duration // when: elapsed
	step    time.Duration // what the device clock has jumped since start
	stepped time.Duration // when that was noticed: elapsed; -hopAge = long ago
}

// clockDoc is the durable form of the floor. Version 1.
type clockDoc struct {
	V     int   `json:"v"`
	Floor int64 `json:"floor"` // hub time, unix seconds
}

func openClock(now func() time.Time, built time.Time, docs Docs) (*Clock, error) {
	started := now()
	c := &Clock{now: now, started: started, built: built, docs: docs, floor: built, stepped: -hopAge}
	c.elapsed = func() time.Duration { return now().Sub(started) } // of two readings with a monotonic part, that part
	var doc clockDoc
	found, err := load(docs, clockKey, &doc)
	if err != nil {
		return nil, err
	}
	if at := time.Unix(doc.Floor, 0).UTC(); found && at.After(c.floor) {
		c.floor, c.stored = at, at
	}
	return c, nil
}

// Device is the device clock.
func (c *Clock) Device() time.Time { return c.now() }

// Known reports whether the device clock can be right: it does not show a time before this program was built.
func (c *Clock) Known() bool { return !c.now().Before(c.built) }

// Believable reports whether hub time is more than a guess: the hub stated it in this run, or the device clock can be right.
func (c *Clock) Believable() bool {
	c.mu.Lock()
	heard := c.heard
	c.mu.Unlock()
	return heard || c.Known()
}

// Now is hub time. It follows the device clock as long as that agrees with what the hub said, within the hub's own tolerance.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hubTimeLocked()
}

func (c *Clock) hubTimeLocked() time.Time {
	device := c.now()
	if !c.heard && !device.Before(c.floor) {
		return device
	}
	hub := c.floor.Add(c.elapsed() - c.at)
	if device.Sub(hub).Abs() <= iothub.SkewTolerance {
		return device
	}
	return hub
}

// Heard notes a time that the hub stated over an authenticated connection, and makes it durable now and then.
func (c *Clock) Heard(ctx context.Context, hub time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor, c.heard, c.at = hub.Round(0).UTC(), true, c.elapsed()
	if c.floor.Sub(c.stored).Abs() < floorStep {
		return nil
	}
	if err := save(ctx, c.docs, clockKey, clockDoc{V: 1, Floor: c.floor.Unix()}); err != nil {
		return err
	}
	c.stored = c.floor
	return nil
}

// spent reports whether a token that a module on this device minted has expired. bound says that the listener itself already
// proves who is connected. Then a token is given the benefit of the doubt where the clock, not the token, is to blame: while
// the clock is unknown, when the token was minted before it was known, and for an hour after the clock has jumped.
func (c *Clock) spent(token iothub.Token, bound bool) bool {
	device := c.now()
	steady, jumped := c.steady(device)
	if !token.Expired(device) {
		return false
	}
	if !bound {
		return true
	}
	if device.Before(c.built) || token.Expiry().Before(c.built) {
		return false
	}
	return !jumped || token.Expired(steady)
}

// steady is what the device clock would show had it never been set since start, and whether it was set so lately that a token
// minted before may still be in use.
func (c *Clock) steady(device time.Time) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	elapsed := c.elapsed()
	steady := c.started.Round(0).Add(elapsed)
	step := device.Round(0).Sub(steady)
	if (step - c.step).Abs() > iothub.SkewTolerance {
		c.step, c.stepped = step, elapsed
	}
	return steady, elapsed-c.stepped < hopAge
}

// TLS returns base made to judge the hub's certificate by hub time. While the device clock is unknown and the certificate is
// younger than every time this device has heard of, it is judged at the date it was issued, and that date is taken as a lower
// bound of the time: its chain, its names and its signature are verified as ever.
func (c *Clock) TLS(base *tls.Config) *tls.Config {
	out := base.Clone()
	if out == nil {
		out = &tls.Config{}
	}
	if out.MinVersion < tls.VersionTLS12 {
		out.MinVersion = tls.VersionTLS12
	}
	if out.InsecureSkipVerify {
		return out
	}
	roots, also := out.RootCAs, out.VerifyConnection
	out.Time = c.Now
	out.InsecureSkipVerify = true // VerifyConnection does the same verification with a second try, and runs on resumption too
	out.VerifyConnection = func(state tls.ConnectionState) error {
		if err := c.verify(state, roots); err != nil {
			return err
		}
		if also != nil {
			return also(state)
		}
		return nil
	}
	return out
}

func (c *Clock) verify(state tls.ConnectionState, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("hub showed no certificate")
	}
	leaf := state.PeerCertificates[0]
	options := x509.VerifyOptions{DNSName: state.ServerName, Roots: roots, CurrentTime: c.Now(), Intermediates: x509.NewCertPool()}
	issued := leaf.NotBefore
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
		if cert.NotBefore.After(issued) {
			issued = cert.NotBefore
		}
	}
	_, err := leaf.Verify(options)
	var invalid x509.CertificateInvalidError
	young := errors.As(err, &invalid) && invalid.Reason == x509.Expired && options.CurrentTime.Before(issued)
	if err == nil || !young || c.Known() {
		return wrapVerify(err, leaf)
	}
	options.CurrentTime = issued.Add(time.Second)
	if _, err := leaf.Verify(options); err != nil {
		return wrapVerify(err, leaf)
	}
	c.atLeast(options.CurrentTime)
	return nil
}

func wrapVerify(err error, leaf *x509.Certificate) error {
	if err == nil {
		return nil
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{leaf}, Err: err}
}

// atLeast raises hub time in this run; it is a bound, not a statement, so it is not made durable.
func (c *Clock) atLeast(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.After(c.hubTimeLocked()) {
		c.floor, c.heard, c.at = at, true, c.elapsed()
	}
}
