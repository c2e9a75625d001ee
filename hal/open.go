package hal

import (
	"context"
	"time"
)

// soonest and latest are how long after the start, and after a try, what could not be opened is tried again: nothing tells when another
// program lets go of a line.
const (
	soonest = time.Second
	latest  = time.Minute
)

// follow opens what comes and closes what goes, until ctx ends.
func (s *Server) follow(ctx context.Context) {
	changes, wait := s.cfg.Backend.Changes(ctx), soonest
	again := time.NewTimer(wait)
	defer again.Stop()
	for {
		select {
		case c, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
			s.changed(ctx, c)
		case <-again.C:
			s.openAll(ctx)
			wait = min(2*wait, latest)
			again.Reset(wait)
		case <-s.lost:
			wait = soonest
			again.Reset(wait)
		case <-ctx.Done():
			return
		}
	}
}

// openAll opens what is not.
func (s *Server) openAll(ctx context.Context) {
	s.takeKept()
	for _, name := range s.order {
		t := s.things[name]
		s.mu.Lock()
		missing := t.state != "ok"
		s.mu.Unlock()
		if missing {
			s.open(ctx, t)
		}
	}
}

// open opens a resource on its worker. What cannot be opened is absent or busy until something changes.
func (s *Server) open(ctx context.Context, t *thing) {
	if t.Kind == KindNode {
		return
	}
	err := t.worker.do(ctx, "", ClassWrite, time.Now().Add(opTime), func(ctx context.Context) error {
		if t.dev == nil {
			if err := s.openNow(ctx, t); err != nil {
				return err
			}
		}
		s.present(t) // here: the caller may have left
		return nil
	})
	if err != nil {
		s.missing(t, err)
	}
}

// present notes that a resource is open. What it owes it is asked for again.
func (s *Server) present(t *thing) {
	defer s.locked()()
	t.state, t.tried = "ok", false
	if t.debt != nil {
		select {
		case t.debt.back <- struct{}{}:
		default:
		}
	}
}

// missing notes why a resource is not open. The log has it once.
func (s *Server) missing(t *thing, err error) {
	state := string(CodeOf(err))
	s.mu.Lock()
	news := t.state != state || !t.tried
	t.state, t.tried = state, true
	s.mu.Unlock()
	if news {
		s.log.Warn("pin or bus not open", "name", t.Name, "err", err)
	}
}

// openNow opens a resource, or takes it back from the keeper; only its worker calls it.
func (s *Server) openNow(ctx context.Context, t *thing) error {
	var dev Device
	s.mu.Lock()
	k, ok := s.kept[t.Name]
	delete(s.kept, t.Name)
	s.mu.Unlock()
	if ok {
		dev = s.adopt(ctx, t, k)
	}
	if dev == nil {
		var err error
		if dev, err = s.cfg.Backend.Open(ctx, *t.Resource); err != nil {
			return err
		}
	}
	t.dev = dev
	s.keep(t, true)
	p, prompts := dev.(Prompter)
	t.worker.mark(prompts && p.Prompt())
	return nil
}

func (s *Server) changed(ctx context.Context, c Change) {
	for _, t := range s.things {
		switch {
		case c.Match != nil && !c.Match(*t.Resource):
		case c.Present:
			s.open(ctx, t)
		default:
			_ = t.worker.do(ctx, "", ClassSafe, time.Now().Add(opTime), func(context.Context) error {
				s.giveUp(t)
				return nil
			})
			s.missing(t, refusal(Absent, t.Name, "unplugged"))
		}
	}
}

// giveUp closes a device that is gone. Nobody drives it any more, and it is made safe when it is back; only its worker calls it.
func (s *Server) giveUp(t *thing) {
	_, kept := t.dev.(Holder)
	_ = t.close()
	if kept {
		s.drop(t.Name)
	}
	defer s.locked()()
	if t.lease != nil {
		s.endLocked(t, Unplugged)
	}
}

// seen looks at what a device answered. One that says it is gone is opened anew, or missing until that succeeds: not every board tells
// what comes and goes, and no connection. Only its worker calls it.
func (s *Server) seen(ctx context.Context, t *thing, err error) error {
	if err == nil || t.dev == nil || CodeOf(err) != Absent {
		return err
	}
	s.giveUp(t)
	if err := s.openNow(ctx, t); err != nil {
		s.missing(t, err)
		select {
		case s.lost <- struct{}{}:
		default:
		}
	}
	return err
}

func (t *thing) close() error {
	if t.dev == nil {
		return nil
	}
	err := t.dev.Close()
	t.dev = nil
	return err
}
