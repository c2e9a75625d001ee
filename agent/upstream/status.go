package upstream

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// LinkStatus is one link at one moment. Counts are since the link was made.
type LinkStatus struct {
	ID        iothub.ID
	Connected bool
	Since     time.Time // when Connected became what it is
	LastError string    // why the last attempt or connection ended; "" when none has
	Attempts  uint64    // connections tried
	Sent      uint64    // messages the hub has acknowledged
	Dropped   uint64    // messages that the hub can never take
	InFlight  int       // messages sent and not acknowledged
}

// Status returns all links, by identity.
func (u *Upstream) Status() []LinkStatus {
	links := u.all()
	out := make([]LinkStatus, len(links))
	for i, l := range links {
		out[i] = l.status.get()
		out[i].ID = l.id
	}
	return out
}

// WriteMetrics writes the links' counters in the text format of Prometheus.
func (u *Upstream) WriteMetrics(w io.Writer) error {
	status := u.Status()
	series := []struct {
		name, kind, help string
		value            func(LinkStatus) uint64
	}{
		{"sandpiper_upstream_connected", "gauge", "1 while the identity is connected to the hub", func(s LinkStatus) uint64 {
			if s.Connected {
				return 1
			}
			return 0
		}},
		{"sandpiper_upstream_attempts_total", "counter", "connections tried", func(s LinkStatus) uint64 { return s.Attempts }},
		{"sandpiper_upstream_sent_total", "counter", "messages acknowledged by the hub", func(s LinkStatus) uint64 { return s.Sent }},
		{"sandpiper_upstream_dropped_total", "counter", "messages that the hub can never take", func(s LinkStatus) uint64 { return s.Dropped }},
		{"sandpiper_upstream_in_flight", "gauge", "messages sent and not acknowledged", func(s LinkStatus) uint64 { return uint64(s.InFlight) }},
	}
	for _, m := range series {
		if _, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind); err != nil {
			return err
		}
		for _, s := range status {
			if _, err := fmt.Fprintf(w, "%s{identity=%q} %d\n", m.name, s.ID.String(), m.value(s)); err != nil {
				return err
			}
		}
	}
	return nil
}

// status is the state of a link that others may look at.
type status struct {
	mu  sync.Mutex
	now LinkStatus
}

func (s *status) get() LinkStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *status) change(edit func(*LinkStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(&s.now)
}
