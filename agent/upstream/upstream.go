package upstream

import (
	"context"
	"encoding/json"
	"log/slog"
	"sort"
	"sync"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Upstream is the device's side of the hub: all its links. Create with [New].
type Upstream struct {
	cfg        Config
	log        *slog.Logger
	handshakes chan struct{} // capacity Config.Handshakes
	wanted     chan struct{} // capacity 1: the identities were changed

	mu       sync.Mutex
	ids      map[iothub.ID]bool  // that are wanted
	links    map[iothub.ID]*link // that there are
	onStatus []func()
}

// New makes an Upstream without identities. It registers with the twins for reported properties, so it is made before they are used.
func New(cfg Config) (*Upstream, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	u := &Upstream{
		cfg: cfg, log: cfg.Logger,
		handshakes: make(chan struct{}, cfg.Handshakes),
		wanted:     make(chan struct{}, 1),
		ids:        map[iothub.ID]bool{}, links: map[iothub.ID]*link{},
	}
	cfg.Twins.OnReported(func(id iothub.ID, _ json.RawMessage) { u.poke(id) })
	return u, nil
}

// SetIdentities says who has a link from now on: the others' connections are closed, new ones are made. It may be called at any time.
func (u *Upstream) SetIdentities(ids []iothub.ID) {
	u.mu.Lock()
	u.ids = make(map[iothub.ID]bool, len(ids))
	for _, id := range ids {
		u.ids[id] = true
	}
	u.mu.Unlock()
	signal(u.wanted)
}

// OnStatus registers a callback for each change that [Upstream.Status] shows of who is connected. Register before Run; it must not wait.
func (u *Upstream) OnStatus(call func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.onStatus = append(u.onStatus, call)
}

func (u *Upstream) statusChanged() {
	u.mu.Lock()
	calls := u.onStatus
	u.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// Run keeps the links until ctx ends, and returns when all have ended. It gives messages in flight two seconds to be acknowledged.
func (u *Upstream) Run(ctx context.Context) error {
	var links sync.WaitGroup
	defer links.Wait()
	up := u.cfg.LinkUp
	for {
		for _, l := range u.reconcile() {
			ending, cancel := context.WithCancel(ctx)
			l.cancel = cancel
			links.Go(func() {
				defer cancel()
				l.run(ending)
				u.ended(l)
			})
		}
		select {
		case <-u.wanted:
		case _, ok := <-up:
			if !ok {
				up = nil
				continue
			}
			u.NetworkUp()
		case <-ctx.Done():
			return nil
		}
	}
}

// NetworkUp says that the network may have come back, as Config.LinkUp does: links that wait dial at once, connections that are open
// are tried.
func (u *Upstream) NetworkUp() {
	u.log.Debug("network may be back")
	for _, l := range u.all() {
		signal(l.networkUp)
	}
}

// gotThrough says that one link has reached the hub: after an outage the others, which wait for theirs, need not wait on. Only those
// do that could not reach it; a link that the hub refuses or throws out keeps its own pace.
func (u *Upstream) gotThrough(one *link) {
	for _, l := range u.all() {
		if l != one {
			signal(l.hubThere)
		}
	}
}

// reconcile ends links that are not wanted and returns those that are to be started. An identity that is wanted again while its
// old link is still ending gets its new one when that has ended.
func (u *Upstream) reconcile() []*link {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, l := range u.links {
		if !u.ids[id] {
			l.cancel()
		}
	}
	var start []*link
	for id := range u.ids {
		if u.links[id] != nil {
			continue
		}
		l := newLink(u, id)
		u.links[id] = l
		start = append(start, l)
	}
	return start
}

// ended forgets a link whose goroutine is over.
func (u *Upstream) ended(l *link) {
	u.mu.Lock()
	delete(u.links, l.id)
	u.mu.Unlock()
	signal(u.wanted)
}

// all returns the links, by identity.
func (u *Upstream) all() []*link {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]*link, 0, len(u.links))
	for _, l := range u.links {
		out = append(out, l)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].id.String() < out[j].id.String() })
	return out
}

// poke tells id's link that there is something to report.
func (u *Upstream) poke(id iothub.ID) {
	u.mu.Lock()
	l := u.links[id]
	u.mu.Unlock()
	if l != nil {
		signal(l.reported)
	}
}

// signal leaves a token in a channel of capacity 1, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// unsignal takes the token that may be in a channel of capacity 1.
func unsignal(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}
