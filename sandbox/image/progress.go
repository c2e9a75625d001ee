package image

import "time"

// Phase is what a fetch is doing.
type Phase string

// The phases, in order.
const (
	PhaseCheck    Phase = "check"    // signature, policy, space
	PhaseTransfer Phase = "transfer" // chunks arrive
	PhaseVerify   Phase = "verify"   // the whole image is read back
)

// Progress of a fetch.
type Progress struct {
	Reference string // as it was asked for, without credentials
	Phase     Phase
	Image     string        // name and version, once known
	Done      int64         // bytes of the image
	Total     int64         // bytes of the image, once known
	Received  int64         // bytes of it that came over the network, as they were stored there
	Rate      int64         // image bytes per second, over the last seconds; 0 = not known yet
	Left      time.Duration // until the image is whole at this rate; 0 = not known
}

// progressMeter measures a transfer's pace.
type progressMeter struct {
	wire int64 // stored bytes
	at   time.Time
	done int64
	rate float64
}

// paceWindow is how long bytes are counted before they move the rate.
const paceWindow = time.Second

// pace returns the rate after done bytes.
func (m *progressMeter) pace(now time.Time, done int64) int64 {
	if m.at.IsZero() || done < m.done {
		m.at, m.done, m.rate = now, done, 0
	}
	if d := now.Sub(m.at); d >= paceWindow {
		fresh := float64(done-m.done) / d.Seconds()
		if m.rate == 0 {
			m.rate = fresh
		}
		m.rate = 0.7*m.rate + 0.3*fresh
		m.at, m.done = now, done
	}
	return int64(m.rate)
}

// Fetching returns how far the running fetch is, and whether there is one.
func (s *Store) Fetching() (Progress, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return Progress{}, false
	}
	return *s.now, true
}

func (s *Store) progressed(p *Progress) {
	s.mu.Lock()
	s.now = p
	s.mu.Unlock()
}

func (t *transfer) progress(phase Phase) {
	p := Progress{
		Reference: withoutCredentials(t.reference), Phase: phase, Image: t.label(), Done: t.received(),
		Received: t.meter.wire,
	}
	if t.head != nil {
		p.Total = int64(t.head.Manifest.Image.Size)
	}
	p.Rate = t.meter.pace(time.Now(), p.Done)
	if p.Rate > 0 && p.Total > p.Done {
		p.Left = time.Duration(float64(p.Total-p.Done) / float64(p.Rate) * float64(time.Second)).Round(time.Second)
	}
	t.store.progressed(&p)
	if t.report != nil {
		t.report(p)
	}
}
