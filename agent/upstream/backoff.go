package upstream

import (
	"math/rand/v2"
	"time"
)

// Waits between attempts. An attempt that the hub refused costs it a look-up and helps nobody, so it comes more slowly.
const (
	firstWait   = time.Second
	longestWait = time.Minute

	firstRefusedWait   = 30 * time.Second
	longestRefusedWait = 10 * time.Minute
)

// backoff is exponential with full jitter: the n-th wait is anywhere between nothing and first doubled n times, at most longest.
type backoff struct {
	first, longest time.Duration
	tries          int
}

func (b *backoff) next() time.Duration {
	limit := b.longest
	if b.tries < 16 {
		limit = min(b.longest, b.first<<b.tries)
		b.tries++
	}
	return rand.N(limit)
}

func (b *backoff) reset() { b.tries = 0 }
