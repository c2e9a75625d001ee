package supervisor

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// logShelf is the logs of all modules, and bounds them together.
type logShelf struct {
	total int64 // bytes of all logs
	rate  int64 // bytes a second of one module

	segment atomic.Int64 // how large a segment may be, bytes: half the total is always left for older ones

	mu   sync.Mutex // guards what follows; taken before the mutex of a log
	logs map[string]*logFile
}

func newLogShelf(total, rate int64) *logShelf {
	s := &logShelf{total: total, rate: rate, logs: map[string]*logFile{}}
	s.shareLocked()
	return s
}

func (s *logShelf) shareLocked() {
	s.segment.Store(min(max(s.total/int64(2*max(len(s.logs), 1)), logLeast), logSegment))
}

func (s *logShelf) put(l *logFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs[l.dir] = l
	s.shareLocked()
}

// remove forgets a log and removes its files.
func (s *logShelf) remove(l *logFile) error {
	s.mu.Lock()
	if s.logs[l.dir] == l {
		delete(s.logs, l.dir)
		s.shareLocked()
	}
	s.mu.Unlock()
	return os.RemoveAll(l.dir)
}

// trim removes the oldest segments, of whichever module has most, until all logs together are within their bound. What is being written
// stays.
func (s *logShelf) trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var all, most int64
		var largest *logFile
		for _, l := range s.logs {
			size, older := l.weight()
			if all += size; older && size > most {
				largest, most = l, size
			}
		}
		if all <= s.total || largest == nil || !largest.shorten() {
			return
		}
	}
}

// weight is the size of a log in bytes, and whether it has more than the segment that is written.
func (l *logFile) weight() (size int64, older bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.kept {
		size += n
	}
	return size, len(l.kept) > 1
}

// shorten removes the oldest segment.
func (l *logFile) shorten() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := l.newest
	for n := range l.kept {
		oldest = min(oldest, n)
	}
	if oldest == l.newest {
		return false
	}
	had := len(l.kept)
	l.removeLocked(oldest)
	return len(l.kept) < had
}

// sweep removes the logs of modules that are not on the shelf.
func (s *logShelf) sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // none
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); s.logs[path] == nil {
			_ = os.RemoveAll(path) // tried again at the next start
		}
	}
}
