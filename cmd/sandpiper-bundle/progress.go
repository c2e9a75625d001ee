package main

import (
	"fmt"
	"io"
	"time"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// progress draws one line on a terminal for work that takes over half a second, and nothing anywhere else.
type progress struct {
	w     io.Writer
	what  string
	start time.Time
	last  time.Time
	drawn bool
}

const (
	drawAfter = 500 * time.Millisecond
	drawEvery = 100 * time.Millisecond
)

func newProgress(w io.Writer, what string) *progress {
	p := &progress{what: what, start: time.Now()}
	if console.IsTerminal(w) {
		p.w = w
	}
	return p
}

func (p *progress) set(done, total int64) {
	now := time.Now()
	if p.w == nil || now.Sub(p.start) < drawAfter || now.Sub(p.last) < drawEvery {
		return
	}
	p.last, p.drawn = now, true
	rate := float64(done) / max(now.Sub(p.start).Seconds(), 1e-3)
	fmt.Fprintf(p.w, "\r%s %3d %%  %s of %s  %s/s\x1b[K", p.what, done*100/max(total, 1), console.Size(done), console.Size(total), console.Size(int64(rate)))
}

func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
