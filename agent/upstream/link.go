package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// goodSession is how long a connection must have lasted for the next attempt to come without a long wait: two devices with one
// identity, which push each other out, are to slow down.
const goodSession = 30 * time.Second

// spread keeps the links from dialling all at once when the network comes back.
const spread = 200 * time.Millisecond

// Reasons for this side to end a session. After the first two the next one is made at once.
var (
	errRenew    = errors.New("the token is about to expire")
	errStale    = errors.New("the network came back under the connection")
	errStalled  = errors.New("the hub acknowledges nothing")
	errNoAnswer = errors.New("the hub does not answer")
)

// RefusedError is a CONNACK that says no.
type RefusedError struct{ Code byte }

// Error says what the code means.
func (e *RefusedError) Error() string {
	switch e.Code {
	case 1:
		return "the hub speaks another protocol version (code 1)"
	case 2:
		return "the hub does not accept this client id (code 2)"
	case 3:
		return "the hub is not available (code 3)"
	case 4, 5:
		return fmt.Sprintf("the hub refuses this identity (code %d): is it registered and enabled there, is its key ours, is the time right?", e.Code)
	}
	return fmt.Sprintf("the hub refuses with code %d", e.Code)
}

// final tells a refusal that trying again soon will not change.
func (e *RefusedError) final() bool { return e.Code != 3 }

// link is one identity's way to the hub. run owns it; the channels and status may be used by others.
type link struct {
	*Upstream
	id     iothub.ID
	lane   string // sink of the queue
	log    *slog.Logger
	status status

	networkUp chan struct{} // capacity 1
	hubThere  chan struct{} // capacity 1: another link got through
	reported  chan struct{} // capacity 1

	tickets tls.ClientSessionCache
	wait    backoff
	refused backoff
	mended  bool // Refused said that it may go better, and no connection has been made since
	kept    kept
	calls   chan struct{}
	methods sync.WaitGroup

	cancel context.CancelFunc // Run's
}

// maxCalls bounds the direct methods of one identity that are under way.
const maxCalls = 16

func newLink(u *Upstream, id iothub.ID) *link {
	module := id.Module
	if module == "" {
		module = "_"
	}
	l := &link{
		Upstream: u, id: id, lane: "upstream/" + module, log: u.log.With("identity", id.String()),
		networkUp: make(chan struct{}, 1), hubThere: make(chan struct{}, 1), reported: make(chan struct{}, 1), calls: make(chan struct{}, maxCalls),
		tickets: tls.NewLRUClientSessionCache(1),
		wait:    backoff{first: firstWait, longest: longestWait},
		refused: backoff{first: firstRefusedWait, longest: longestRefusedWait},
	}
	l.status.now = LinkStatus{ID: id, Since: u.cfg.Now()}
	return l
}

// run makes one session after the other until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.methods.Wait()
	quiet := false // the last failure has been logged as a warning
	for ctx.Err() == nil {
		lasted, err := l.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if lasted > 0 {
			quiet = false
		}
		l.status.change(func(s *LinkStatus) { s.LastError = err.Error() })
		switch {
		case errors.Is(err, errRenew):
			l.log.Debug("connection to the hub is renewed")
			continue
		case quiet:
			l.log.Debug("no connection to the hub", "err", err)
		default:
			l.log.Warn("no connection to the hub", "err", err)
			quiet = true
		}
		l.rest(ctx, err, lasted)
	}
}

// once makes a connection and serves it to its end. lasted is zero when there was none.
func (l *link) once(ctx context.Context) (lasted time.Duration, err error) {
	l.status.change(func(s *LinkStatus) { s.Attempts++ })
	unsignal(l.hubThere) // whoever got through did so before this attempt
	s, err := l.connect(ctx)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	l.mended = false
	l.refused.reset()
	l.connected(true)
	l.log.Info("connected to the hub")
	l.gotThrough(l)
	err = s.run(ctx)
	l.connected(false)
	return max(time.Since(begun), 1), err
}

func (l *link) connected(is bool) {
	l.status.change(func(s *LinkStatus) {
		s.Connected, s.Since, s.InFlight = is, l.cfg.Now(), 0
	})
	l.statusChanged()
}

// rest waits before the next attempt: not at all when the network has just come back, long when the hub refuses the identity and
// nobody could mend it.
func (l *link) rest(ctx context.Context, err error, lasted time.Duration) {
	if errors.Is(err, errStale) {
		return
	}
	if lasted >= goodSession {
		l.wait.reset()
	}
	var refused *RefusedError
	if errors.As(err, &refused) && refused.final() && !l.mend(ctx) {
		l.pause(ctx, l.refused.next())
		return
	}
	there := l.hubThere
	if lasted > 0 {
		there = nil // it was there for us too, and something else ended the session
	}
	if l.pause(ctx, l.wait.next(), l.networkUp, there) {
		l.wait.reset()
		l.pause(ctx, rand.N(spread))
	}
}

// mend asks for the identity to be put right on the hub. It helps once: when the next attempt is refused too, something else is wrong.
func (l *link) mend(ctx context.Context) bool {
	if l.cfg.Refused == nil || l.mended {
		l.mended = false
		return false
	}
	if err := l.cfg.Refused(ctx, l.id); err != nil {
		l.log.Debug("identity could not be mended on the hub", "err", err)
		return false
	}
	l.mended = true
	return true
}

// pause waits for d, ctx or one of early (two at most, each may be nil), and says whether it was one of them.
func (l *link) pause(ctx context.Context, d time.Duration, early ...<-chan struct{}) bool {
	early = append(early, nil, nil)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-early[0]:
		return true
	case <-early[1]:
		return true
	}
	return false
}
