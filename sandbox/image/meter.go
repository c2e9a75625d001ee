package image

import (
	"context"
	"encoding/json"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// meter holds transfers to a rate, and counts what comes over links that cost.
type meter struct {
	rate    int64
	metered []string
	monthly int64
	save    func(text []byte) error // durably
	now     func() time.Time

	mu      sync.Mutex // guards the fields below
	tokens  float64    // bytes that may come at once; below zero = owed
	filled  time.Time
	used    used
	unsaved int64
}

// used is the durable count of metered bytes.
type used struct {
	Version int    `json:"version"` // 1
	Month   string `json:"month"`   // "2006-01"
	Bytes   int64  `json:"bytes"`
}

const (
	usedVersion = 1
	saveEvery   = 1 << 20  // bytes that a power cut may leave uncounted
	mostAtOnce  = 16 << 10 // bytes of one read, so that a rate is even
)

// newMeter goes on with the count in the file.
func newMeter(cfg Config, path string, save func(text []byte) error) *meter {
	m := &meter{rate: cfg.Rate, metered: cfg.Metered, monthly: cfg.Monthly, save: save, now: cfg.Now}
	if text, err := os.ReadFile(path); err == nil {
		var u used
		if json.Unmarshal(text, &u) == nil && u.Version == usedVersion && u.Bytes >= 0 {
			m.used = u
		}
	}
	return m
}

// slowest is the pace below which a transfer counts as stalled, in bytes per second: half the rate where that is less.
func (m *meter) slowest() int64 {
	if m.rate > 0 {
		return min(slowest, m.rate/2)
	}
	return slowest
}

// pass lets one connection's bytes through.
type pass struct {
	meter  *meter
	counts bool
}

// pass looks over which interface a server is reached, and refuses one whose month is used up.
func (m *meter) pass(ctx context.Context, to *url.URL) (*pass, error) {
	p := &pass{meter: m}
	if len(m.metered) == 0 {
		return p, nil
	}
	p.counts = slices.Contains(m.metered, "*") || slices.Contains(m.metered, interfaceTo(ctx, to))
	if p.counts {
		return p, m.count(0)
	}
	return p, nil
}

// interfaceTo names the interface that packets to a server leave by: a datagram socket is bound to it without a packet sent.
func interfaceTo(ctx context.Context, to *url.URL) string {
	port := to.Port()
	if port == "" {
		port = "443"
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", net.JoinHostPort(to.Hostname(), port))
	if err != nil {
		return "" // the request will say why
	}
	defer func() { _ = c.Close() }()
	local, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return ""
	}
	all, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(local.IP) {
				return i.Name
			}
		}
	}
	return ""
}

// count adds bytes of a metered link, and says when there are too many.
func (m *meter) count(n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if month := m.now().UTC().Format("2006-01"); month > m.used.Month { // a clock that goes back brings no new month
		m.used = used{Version: usedVersion, Month: month}
	}
	m.used.Bytes += n
	if m.unsaved += n; m.unsaved >= saveEvery {
		m.saveLocked()
	}
	if m.monthly > 0 && m.used.Bytes >= m.monthly {
		return bundle.Reject(bundle.ErrMetered, "%d bytes came over metered links in %s and %d may: wait for the next month or another link, or raise bundles.monthly_bytes",
			m.used.Bytes, m.used.Month, m.monthly)
	}
	return nil
}

func (m *meter) saveLocked() {
	text, err := json.Marshal(m.used)
	if err == nil && m.save(text) == nil {
		m.unsaved = 0
	}
}

// took waits until n more bytes fit the rate, and counts them.
func (p *pass) took(ctx context.Context, n int) error {
	var over error
	if p.counts {
		over = p.meter.count(int64(n))
	}
	if d := p.meter.owed(n); d > 0 {
		if err := pause(ctx, d); err != nil {
			return err
		}
	}
	return over
}

// owed takes n bytes out of the bucket, which holds a second's worth, and returns how long it takes to fill up again to nothing.
func (m *meter) owed(n int) time.Duration {
	if m.rate <= 0 {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if !m.filled.IsZero() {
		m.tokens = min(m.tokens+now.Sub(m.filled).Seconds()*float64(m.rate), float64(m.rate))
	}
	m.filled = now
	m.tokens -= float64(n)
	if m.tokens >= 0 {
		return 0
	}
	return time.Duration(-m.tokens / float64(m.rate) * float64(time.Second))
}

// done saves the count.
func (p *pass) done() {
	p.meter.mu.Lock()
	defer p.meter.mu.Unlock()
	if p.counts && p.meter.unsaved > 0 {
		p.meter.saveLocked()
	}
}
