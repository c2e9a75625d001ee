package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
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
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
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
	fmt.Fprintf(p.w, "\r%s %3d %%  %s of %s  %s/s\x1b[K", p.what, done*100/max(total, 1), size(done), size(total), size(int64(rate)))
}

func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// size prints bytes for people.
func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}
