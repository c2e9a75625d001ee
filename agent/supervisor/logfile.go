package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Default bounds of logs.
const (
	logSegment  = 128 << 10 // bytes of one segment
	logSegments = 4         // of one module
	logLeast    = 16 << 10  // bytes of a segment, however many modules share the total
	logRate     = 256 << 10 // bytes a second that a module may print for long
	logBurst    = 4         // seconds of that rate which may come at once
	maxLine     = 16 << 10  // bytes of text; a longer line goes on as another one
)

// logFile is the log of one module: segments 1, 2, 3 and so on, of which the newest few are kept. It is written by the collectors of the
// module's streams, in the order in which they took the output.
type logFile struct {
	dir   string
	shelf *logShelf
	rate  int64 // bytes a second
	now   func() time.Time

	mu      sync.Mutex // guards what follows, and the names of the files
	f       *os.File   // the newest segment; nil = not open
	newest  int        // its number; 0 = there is none
	size    int64      // of it, in whole pieces
	kept    map[int]int64
	tokens  float64 // bytes that may be taken
	filled  time.Time
	open    [streams]bool // the stream is in the middle of a line
	changed chan struct{}
	lost    uint64    // lines dropped since the agent began
	lostAt  time.Time // when the last of them was
	warned  time.Time
}

func newLogFile(dir string, shelf *logShelf, now func() time.Time) *logFile {
	l := &logFile{dir: dir, shelf: shelf, rate: shelf.rate, now: now, kept: map[int]int64{}, changed: make(chan struct{})}
	l.tokens, l.filled = float64(l.rate*logBurst), now()
	l.mu.Lock()
	l.lookLocked()
	l.mu.Unlock()
	shelf.put(l)
	return l
}

func (l *logFile) name(segment int) string {
	return filepath.Join(l.dir, fmt.Sprintf("%08d.seg", segment))
}

// lookLocked finds the segments that are there; what else lies in the directory is an older release's and goes.
func (l *logFile) lookLocked() {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return // nothing was printed
	}
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), ".seg")
		n, err := strconv.Atoi(number)
		info, gone := e.Info()
		switch {
		case gone != nil:
		case !ok || err != nil || n <= 0:
			_ = os.Remove(filepath.Join(l.dir, e.Name())) // if not, it is only in nobody's way
		default:
			l.kept[n] = info.Size()
			l.newest = max(l.newest, n)
		}
	}
}

// openLocked opens the newest segment and puts its last piece right, which an agent that was killed may have left unfinished.
func (l *logFile) openLocked() error {
	if l.f != nil {
		return nil
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	if l.newest == 0 {
		return l.beginLocked()
	}
	f, err := os.OpenFile(l.name(l.newest), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return l.beginLocked()
	}
	if err != nil {
		return err
	}
	if l.size, err = l.mend(f); err != nil { // it cannot be gone on with
		f.Close()
		return l.beginLocked()
	}
	l.f = f
	l.kept[l.newest] = l.size
	return nil
}

// mend returns where the next piece of a segment goes, and takes note of how its streams end.
func (l *logFile) mend(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	head := make([]byte, pieceSize)
	at, end := int64(0), info.Size()
	for at+pieceSize <= end {
		if _, err := f.ReadAt(head, at); err != nil {
			return 0, err
		}
		p, err := parsePiece(head)
		if err != nil {
			return 0, err
		}
		if have := end - at - pieceSize; int64(p.size) > have {
			p.size = int(have)
			if _, err := f.WriteAt(p.append(head[:0]), at); err != nil {
				return 0, err
			}
		}
		at += pieceSize + int64(p.size)
		if p.size > 0 {
			if _, err := f.ReadAt(head[:1], at-1); err != nil {
				return 0, err
			}
			l.open[p.stream] = head[0] != '\n'
		}
	}
	if at < end { // half a header
		return at, f.Truncate(at)
	}
	return at, nil
}

// beginLocked begins a new segment; the oldest go.
func (l *logFile) beginLocked() error {
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
	f, err := os.OpenFile(l.name(l.newest+1), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	l.newest++
	l.f, l.size = f, 0
	l.kept[l.newest] = 0
	for n := range l.kept {
		if n <= l.newest-logSegments {
			l.removeLocked(n)
		}
	}
	return nil
}

func (l *logFile) removeLocked(n int) {
	if err := os.Remove(l.name(n)); err == nil || errors.Is(err, fs.ErrNotExist) {
		delete(l.kept, n)
	}
}

// roomLocked has a segment open that takes one more piece. A segment ends with a whole line, unless one is endless.
func (l *logFile) roomLocked() error {
	if err := l.openLocked(); err != nil {
		return err
	}
	most := l.shelf.segment.Load()
	if l.size < most || slices.Contains(l.open[:], true) && l.size < most+chunk {
		return nil
	}
	return l.beginLocked()
}

// addLocked writes a piece whose text text fills in.
func (l *logFile) addLocked(p piece, text func(at int64) (int, error)) (int, error) {
	if err := l.roomLocked(); err != nil {
		return 0, err
	}
	p.at = l.now()
	head := make([]byte, 0, pieceSize)
	if _, err := l.f.WriteAt(p.append(head), l.size); err != nil {
		return 0, l.brokenLocked(err)
	}
	n, err := 0, error(nil)
	if p.size > 0 {
		n, err = text(l.size + pieceSize)
	}
	if n < p.size {
		p.size = n
		if _, err2 := l.f.WriteAt(p.append(head), l.size); err2 != nil {
			return n, l.brokenLocked(errors.Join(err, err2))
		}
	}
	if n > 0 || p.dropped {
		l.size += pieceSize + int64(n)
	}
	if n > 0 {
		var last [1]byte
		if _, err := l.f.ReadAt(last[:], l.size-1); err == nil {
			l.open[p.stream] = last[0] != '\n'
		}
	}
	l.kept[l.newest] = l.size
	close(l.changed)
	l.changed = make(chan struct{})
	return n, err
}

// brokenLocked gives the file up; where its last whole piece ends is found out when it is opened again.
func (l *logFile) brokenLocked(err error) error {
	l.f.Close()
	l.f = nil
	return err
}

// take moves n bytes from a stream of the module to the end of its log. An error means that not all were moved; the others are still where
// they were.
func (l *logFile) take(s Stream, from source, n int) (int, error) {
	return l.add(piece{stream: s, size: n}, func(at int64) (int, error) { return from.move(l.f, at, n) })
}

// put writes text at the end of the log.
func (l *logFile) put(s Stream, text []byte) error {
	_, err := l.add(piece{stream: s, size: len(text)}, func(at int64) (int, error) { return l.f.WriteAt(text, at) })
	return err
}

func (l *logFile) add(p piece, text func(at int64) (int, error)) (int, error) {
	l.mu.Lock()
	before := l.newest
	n, err := l.addLocked(p, text)
	l.tokens -= float64(n)
	turned := l.newest != before
	l.mu.Unlock()
	if turned {
		l.shelf.trim()
	}
	return n, err
}

// note writes down what is missing, in one piece for as long as nothing else comes after it.
func (l *logFile) note(d *drop) error {
	if d.lines == d.toldL && d.bytes == d.toldB {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += d.lines - d.toldL
	l.lostAt = l.now()
	p := piece{stream: d.stream, dropped: true, lines: d.lines, bytes: d.bytes, at: l.lostAt}
	if d.segment == l.newest && l.f != nil && d.segment != 0 {
		if _, err := l.f.WriteAt(p.append(nil), d.at); err != nil {
			return l.brokenLocked(err)
		}
		d.toldL, d.toldB = d.lines, d.bytes
		return nil
	}
	if d.segment != 0 { // the one before stays as it is
		d.lines, d.bytes = d.lines-d.toldL, d.bytes-d.toldB
		p.lines, p.bytes = d.lines, d.bytes
	}
	if _, err := l.addLocked(p, nil); err != nil {
		l.lost -= d.lines - d.toldL // counted when it is told
		return err
	}
	d.segment, d.at = l.newest, l.size-pieceSize
	d.toldL, d.toldB = d.lines, d.bytes
	return nil
}

// midLine tells whether the stream is in the middle of a line.
func (l *logFile) midLine(s Stream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[s]
}

// fillLocked gives the module what its rate has earned.
func (l *logFile) fillLocked() {
	now := l.now()
	earned := max(now.Sub(l.filled), 0).Seconds() * float64(l.rate)
	l.tokens = min(l.tokens+earned, float64(l.rate*logBurst))
	l.filled = now
}

// allows tells whether the module may print n more bytes.
func (l *logFile) allows(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fillLocked()
	return l.tokens >= float64(n)
}

// recovered tells whether a module that printed too much has earned half its burst again.
func (l *logFile) recovered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fillLocked()
	return l.tokens >= float64(l.rate*logBurst/2)
}

// loud tells, once a minute, that an operator should hear of what is dropped.
func (l *logFile) loud() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if !l.warned.IsZero() && now.Sub(l.warned).Abs() < time.Minute {
		return false
	}
	l.warned = now
	return true
}

// missing says how many lines were dropped, and when the last of them was.
func (l *logFile) missing() (lines uint64, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost, l.lostAt
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
