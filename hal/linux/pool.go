package linux

import (
	"io"
	"sync"
)

// pool shares one open adapter, port or connection between the resources that sit on it: the first opens it, the
// last closes it. The zero value is empty. It knows of what it holds that it can be closed: a pool for each type would be four
// times the code.
type pool struct {
	mu   sync.Mutex
	open map[string]*pooled // by the device's node or address
}

type pooled struct {
	_     noCompare
	it    io.Closer
	users int
	set   string // how it was opened; others must want the same
}

// get opens key with f unless it is open already, and refuses to share what was opened in another way.
func (p *pool) get(key, set string, f func() (io.Closer, error)) (*share, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.open[key]
	if e != nil && e.set != set {
		return nil, inUse(key, "another entry of the configuration, as "+e.set)
	}
	if e == nil {
		it, err := f()
		if err != nil {
			return nil, err
		}
		e = &pooled{it: it, set: set}
		if p.open == nil {
			p.open = map[string]*pooled{}
		}
		p.open[key] = e
	}
	e.users++
	return &share{pool: p, key: key, entry: e}, nil
}

// share is one user's part of an open thing.
type share struct {
	_     noCompare
	pool  *pool
	key   string
	entry *pooled
	once  sync.Once
}

func (s *share) it() io.Closer { return s.entry.it }

// Close gives the part back; closing twice does nothing.
func (s *share) Close() (err error) {
	s.once.Do(func() {
		s.pool.mu.Lock()
		defer s.pool.mu.Unlock()
		if s.entry.users--; s.entry.users > 0 {
			return
		}
		if s.pool.open[s.key] == s.entry {
			delete(s.pool.open, s.key)
		}
		err = s.entry.it.Close()
	})
	return err
}

// forget makes the next get open the thing anew, as after its device was plugged out; present users keep theirs.
func (s *share) forget() {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.pool.open[s.key] == s.entry {
		delete(s.pool.open, s.key)
	}
}
