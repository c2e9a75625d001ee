package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// What a line of a log file looks like: stampLayout, a space, at most maxLine bytes of text, a newline.
const (
	stampLayout = "2006-01-02T15:04:05.000000Z"
	stampSize   = len(stampLayout) + 1
	maxLine     = 16 << 10
)

// Default bounds of a module's log.
const (
	logSize  = 1 << 20 // bytes of one file
	logFiles = 4
)

// logFile is the log of one module: current, and files-1 older ones current.1 and so on. Lines are never split over two files. Each piece
// of output is written at once, half lines too; the next agent goes on in the middle of a line.
type logFile struct {
	dir   string
	max   int64 // bytes of one file, exceeded by at most one line
	files int
	now   func() time.Time

	mu      sync.Mutex // guards what follows, and the names of the files
	f       *os.File
	size    int64
	column  int // bytes of text in the line that is not finished; -1 = at the start of a line
	turns   int // rotations so far
	changed chan struct{}
}

func newLogFile(dir string, most int64, files int, now func() time.Time) *logFile {
	return &logFile{dir: dir, max: most, files: files, now: now, column: -1, changed: make(chan struct{})}
}

// name of the n-th file; 0 is the newest.
func (l *logFile) name(n int) string {
	if n == 0 {
		return filepath.Join(l.dir, "current")
	}
	return filepath.Join(l.dir, fmt.Sprintf("current.%d", n))
}

// openLocked opens the newest file and finds out where in a line it ends.
func (l *logFile) openLocked() error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(l.name(0), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size, l.column = f, info.Size(), -1
	tail := make([]byte, min(l.size, int64(maxLine+stampSize+1)))
	if n, err := f.ReadAt(tail, l.size-int64(len(tail))); n < len(tail) {
		f.Close()
		return err
	}
	if open := len(tail) - 1 - bytes.LastIndexByte(tail, '\n'); open > 0 {
		l.column = max(0, open-stampSize)
	}
	return nil
}

// Write adds output of the module. An error means that part of it is missing from the file; the next Write goes on.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		if err := l.openLocked(); err != nil {
			return 0, err
		}
	}
	defer func() {
		close(l.changed)
		l.changed = make(chan struct{})
	}()
	var out []byte
	for rest := p; len(rest) > 0; {
		if l.column < 0 {
			if l.size+int64(len(out)) >= l.max {
				if err := l.flushLocked(out); err != nil {
					return 0, err
				}
				out = out[:0]
				if err := l.rotateLocked(); err != nil {
					return 0, err
				}
			}
			out = l.now().UTC().AppendFormat(out, stampLayout)
			out = append(out, ' ')
			l.column = 0
		}
		piece := rest[:min(len(rest), maxLine-l.column)]
		end := bytes.IndexByte(piece, '\n')
		if end >= 0 {
			piece = piece[:end]
		}
		out = append(out, piece...)
		rest = rest[len(piece):]
		l.column += len(piece)
		switch {
		case end >= 0:
			rest = rest[1:]
			out = append(out, '\n')
			l.column = -1
		case l.column == maxLine: // a longer line goes on as another one
			if len(rest) > 0 && rest[0] == '\n' {
				rest = rest[1:]
			}
			out = append(out, '\n')
			l.column = -1
		}
	}
	if err := l.flushLocked(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (l *logFile) flushLocked(out []byte) error {
	n, err := l.f.Write(out)
	l.size += int64(n)
	if err != nil {
		// Where in a line the file ends is found out when it is opened again.
		l.f.Close()
		l.f = nil
	}
	return err
}

// rotateLocked makes room for a new file; the oldest goes.
func (l *logFile) rotateLocked() error {
	l.f.Close()
	l.f = nil
	for n := l.files - 2; n >= 0; n-- {
		if err := os.Rename(l.name(n), l.name(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if l.files == 1 {
		if err := os.Remove(l.name(0)); err != nil {
			return err
		}
	}
	l.turns++
	return l.openLocked()
}

// Close ends writing. What is there can still be read.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

// reader goes over a log from its oldest line.
type reader struct {
	l     *logFile
	files []*os.File // oldest first, all opened at the same moment
	turns int        // rotations when the last of files was the newest
}

func (l *logFile) reader() (*reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &reader{l: l, turns: l.turns}
	return r, r.openLocked(l.files - 1)
}

// openLocked opens the n-th file and all newer ones. Missing ones are skipped.
func (r *reader) openLocked(n int) error {
	for ; n >= 0; n-- {
		f, err := os.Open(r.l.name(n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			r.Close()
			return fmt.Errorf("read log: %w", err)
		}
		r.files = append(r.files, f)
	}
	return nil
}

// Read reads on through the files; io.EOF where the log ends now.
func (r *reader) Read(p []byte) (int, error) {
	for len(r.files) > 0 {
		n, err := r.files[0].Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		if len(r.files) == 1 {
			return 0, io.EOF
		}
		r.files[0].Close()
		r.files = r.files[1:]
	}
	return 0, io.EOF
}

// follow tells when there is more: it returns at once after opening files that came since, else a channel that is closed then.
func (r *reader) follow() (<-chan struct{}, error) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	newer := r.l.turns - r.turns
	if len(r.files) == 0 { // nothing had been printed
		newer = r.l.files
	}
	had := len(r.files)
	if newer > 0 {
		r.turns = r.l.turns
		if err := r.openLocked(min(newer, r.l.files) - 1); err != nil {
			return nil, err
		}
	}
	if len(r.files) == had {
		return r.l.changed, nil
	}
	more := make(chan struct{})
	close(more)
	return more, nil
}

func (r *reader) Close() {
	for _, f := range r.files {
		f.Close()
	}
	r.files = nil
}
