package workload

import (
	"context"
	"sync"
	"time"
)

// Who asks for pins alone is answered as fast as it asks. While another module asks too, each has fairRate requests a second, and waits
// for what it asks beyond that: its connections stand, of which it has maxConns, so that nothing piles up here.
const (
	fairRate   = 2000                   // a second; who needs more has batches
	fairBurst  = 50 * time.Millisecond  // that may come at once: a hundred
	fairWindow = 100 * time.Millisecond // how long a module counts as asking
)

// turns is who asked lately.
type turns struct {
	mu     sync.Mutex
	newest asker
	other  asker // the newest that is another module
}

type asker struct {
	socket *socket
	at     time.Time
}

// turn waits until the module may ask again; an ended context ends the wait.
func (k *socket) turn(ctx context.Context) {
	wait := k.turns.ask(k, time.Now())
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ask says how long a request has to wait.
func (t *turns) ask(k *socket, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.newest.socket != k {
		t.other, t.newest.socket = t.newest, k
	}
	t.newest.at = now
	if t.other.socket == nil || now.Sub(t.other.at) > fairWindow {
		k.next = now
		return 0
	}
	if earliest := now.Add(-fairBurst); k.next.Before(earliest) {
		k.next = earliest
	}
	k.next = k.next.Add(time.Second / fairRate)
	return k.next.Sub(now)
}
