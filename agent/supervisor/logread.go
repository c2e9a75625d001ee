package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// LogQuery chooses lines of a module's log.
type LogQuery struct {
	Tail   int       // the last n lines; negative = all that is kept
	Since  time.Time // only lines from then on; zero = no bound
	Follow bool      // go on with what is written from now on, until the context ends
	Stream *Stream   // only lines of this one; nil = of both
	JSON   bool      // a JSON object for each line instead of text
	Marks  bool      // each line begins with its [Place] and a space; a line that is only a place says where all before it was looked at
	After  *Place    // only what comes after it; Tail and Since do not count then
}

// Line is one line of a module's log.
type Line struct {
	At     time.Time
	Stream Stream
	Text   []byte // without its break; valid until the next line
	// Lines and Bytes say how much is missing here, when Text is nil.
	Lines, Bytes uint64
}

const stampLayout = "2006-01-02T15:04:05.000000Z"

// append prints a line: its time, "stderr:" when it is of that stream, and the text. Lines that are missing are told in their place.
func (l Line) append(b []byte) []byte {
	b = l.At.UTC().AppendFormat(b, stampLayout)
	b = append(b, ' ')
	if l.Stream == Stderr {
		b = append(b, "stderr: "...)
	}
	if l.Text == nil {
		return fmt.Appendf(b, "--- %d lines (%d bytes) dropped: the module prints more than its log takes\n", l.Lines, l.Bytes)
	}
	return append(append(b, l.Text...), '\n')
}

// MarshalJSON gives time, stream, and line or what is dropped.
func (l Line) MarshalJSON() ([]byte, error) {
	type told struct {
		Time    time.Time `json:"time"`
		Stream  string    `json:"stream"`
		Line    *string   `json:"line,omitempty"`
		Dropped uint64    `json:"droppedLines,omitempty"`
		Bytes   uint64    `json:"droppedBytes,omitempty"`
	}
	t := told{Time: l.At.UTC(), Stream: l.Stream.String(), Dropped: l.Lines, Bytes: l.Bytes}
	if l.Text != nil {
		text := string(l.Text)
		t.Line = &text
	}
	return json.Marshal(t)
}

// Logs copies lines of a module's output to w in their order, each with its time. Who follows goes on when the module is replaced by a
// newer one of its name, and ends with [ErrNoModule] when it is removed.
func (s *Supervisor) Logs(ctx context.Context, module string, q LogQuery, w io.Writer) error {
	for {
		u, err := s.unit(module)
		if err == nil {
			err = u.output.copy(ctx, &q, u.gone, w)
		} else if q.After != nil && s.wants(module) {
			err = nil
		}
		if err != nil || !q.Follow || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(replacing):
		}
	}
}

// replacing is how often a follower looks whether the module that takes another one's place is there.
const replacing = 100 * time.Millisecond

// wants tells whether a module is part of the deployment that is carried out.
func (s *Supervisor) wants(module string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied.Find(module) != nil
}

// wants tells whether a line is asked for.
func (q *LogQuery) wants(line Line) bool {
	return (q.Stream == nil || *q.Stream == line.Stream) && (q.Since.IsZero() || q.After != nil || !line.At.Before(q.Since))
}

// passed is how many of the lines that are asked for come before the tail.
func (l *logFile) passed(q *LogQuery) (int, error) {
	if q.Tail < 0 || q.After != nil {
		return 0, nil
	}
	r := l.reader()
	defer r.Close()
	lines := 0
	err := r.lines(true, func(line Line) error {
		if q.wants(line) {
			lines++
		}
		return nil
	})
	return max(lines-q.Tail, 0), err
}

// listing shows lines of a log.
type listing struct {
	q    *LogQuery
	r    *reader
	out  *bufio.Writer
	skip int   // of those that are asked for
	at   Place // of the line that was read last
	told Place // that was marked last
	text []byte
}

func (s *listing) show(line Line) error {
	q := s.q
	if s.at.Segment != s.r.segment {
		s.at = Place{Segment: s.r.segment}
	}
	s.at.Lines++
	switch {
	case q.After != nil && !s.at.behind(*q.After), !q.wants(line):
		return nil
	case s.skip > 0:
		s.skip--
		return nil
	}
	text := s.text[:0]
	if q.Marks {
		text, s.told = append(append(text, s.at.String()...), ' '), s.at
	}
	if q.JSON {
		raw, err := line.MarshalJSON()
		if err != nil {
			return err
		}
		text = append(append(text, raw...), '\n')
	} else {
		text = line.append(text)
	}
	s.text = text
	_, err := s.out.Write(text)
	return err
}

// copy copies lines until there are no more, or who follows has enough or the log is given up (gone). It moves q.After on.
func (l *logFile) copy(ctx context.Context, q *LogQuery, gone <-chan struct{}, w io.Writer) error {
	skip, err := l.passed(q)
	if err != nil {
		return err
	}
	s := &listing{q: q, r: l.reader(), out: bufio.NewWriterSize(w, 32<<10), skip: skip}
	defer func() { s.r.Close() }()
	for first := true; ; first = false {
		l.mu.Lock()
		more := l.changed // looked up before reading: what is written in between is not missed
		l.mu.Unlock()
		over := !q.Follow
		select {
		case <-gone:
			over = true
		default:
		}
		err := s.r.lines(!q.Follow, s.show)
		if err == nil && first && q.After != nil && q.After.behind(s.at) { // another log, of a module that was removed and came back
			s.r.Close()
			s.r, s.at, q.After = l.reader(), Place{}, &Place{}
			err = s.r.lines(!q.Follow, s.show)
		}
		if q.Marks && (s.at != s.told || first) {
			fmt.Fprintln(s.out, s.at)
			s.told = s.at
		}
		if err := errors.Join(err, s.out.Flush()); err != nil {
			return err
		}
		if over {
			q.After = &s.at
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-gone:
		case <-more:
		}
	}
}

// reader goes over a log from its oldest line.
type reader struct {
	l       *logFile
	segment int // 0 = none yet
	f       *os.File
	at      int64
	in      *bufio.Reader
	begun   [streams]Line // of a line that is not finished; Text is the reader's own
	cut     [streams]bool // the line before was cut at its bound just now
}

func (l *logFile) reader() *reader { return &reader{l: l} }

// Close gives its file back.
func (r *reader) Close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// next opens the segment after the one that was read, if there is one.
func (r *reader) next() (bool, error) {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	first := 0
	for n := range l.kept {
		if n > r.segment && (first == 0 || n < first) {
			first = n
		}
	}
	if first == 0 {
		return false, nil
	}
	f, err := os.Open(l.name(first))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read log: %w", err)
	}
	r.Close()
	r.segment, r.f, r.at = first, f, 0
	return true, nil
}

// end is where whole pieces of the open segment end now, and whether there will be none any more.
func (r *reader) end() (int64, bool, error) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if r.f == nil {
		return 0, true, nil
	}
	if r.segment == r.l.newest && r.l.f != nil {
		return r.l.size, false, nil
	}
	info, err := r.f.Stat()
	if err != nil {
		return 0, false, fmt.Errorf("read log: %w", err)
	}
	return info.Size(), r.segment != r.l.newest, nil
}

// lines gives every line up to where the log ends now; the last, unfinished ones too if all is wanted.
func (r *reader) lines(all bool, show func(Line) error) error {
	for {
		end, over, err := r.end()
		if err != nil {
			return err
		}
		if err := r.pieces(end, show); err != nil {
			return err
		}
		if !over && r.segment != 0 {
			break
		}
		if more, err := r.next(); err != nil {
			return err
		} else if !more {
			break
		}
	}
	if !all {
		return nil
	}
	for s := range r.begun {
		if err := r.finish(Stream(s), show); err != nil {
			return err
		}
	}
	return nil
}

// pieces reads the open segment up to end.
func (r *reader) pieces(end int64, show func(Line) error) error {
	if r.f == nil || r.at+pieceSize > end {
		return nil
	}
	in := io.NewSectionReader(r.f, r.at, end-r.at)
	if r.in == nil {
		r.in = bufio.NewReaderSize(in, 16<<10)
	}
	r.in.Reset(in)
	for r.at+pieceSize <= end {
		head, err := r.in.Peek(pieceSize)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		p, err := parsePiece(head)
		if err != nil { // a file the disk has damaged: what follows in it cannot be found
			r.at = end
			return nil //nolint:nilerr // the next segment goes on
		}
		_, _ = r.in.Discard(pieceSize) // was peeked
		p.size = int(min(int64(p.size), end-r.at-pieceSize))
		r.at += pieceSize + int64(p.size)
		if p.dropped {
			err = r.missing(p, show)
		} else {
			err = r.text(p, show)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) missing(p piece, show func(Line) error) error {
	if err := r.finish(p.stream, show); err != nil {
		return err
	}
	return show(Line{At: p.at, Stream: p.stream, Lines: p.lines, Bytes: p.bytes})
}

// text takes a piece apart.
func (r *reader) text(p piece, show func(Line) error) error {
	line := &r.begun[p.stream]
	for left := p.size; left > 0; {
		part, err := r.in.Peek(min(left, 4<<10))
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if len(line.Text) == 0 {
			line.At, line.Stream = p.at, p.stream
		}
		end := bytes.IndexByte(part, '\n')
		if r.cut[p.stream] = r.cut[p.stream] && end == 0; r.cut[p.stream] { // it ended where it was cut
			r.cut[p.stream] = false
			_, _ = r.in.Discard(1) // was peeked
			left--
			continue
		}
		take := len(part)
		if end >= 0 {
			take = end
		}
		take = min(take, maxLine-len(line.Text))
		line.Text = append(line.Text, part[:take]...)
		whole := take == end || len(line.Text) == maxLine
		if take == end {
			take++
		} else {
			r.cut[p.stream] = whole
		}
		_, _ = r.in.Discard(take) // was peeked
		left -= take
		if whole {
			if err := r.show(line, show); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) show(line *Line, show func(Line) error) error {
	told := *line
	if told.Text == nil {
		told.Text = []byte{}
	}
	err := show(told)
	line.Text = line.Text[:0]
	return err
}

// finish gives a line that was begun as it is.
func (r *reader) finish(s Stream, show func(Line) error) error {
	if len(r.begun[s].Text) == 0 {
		return nil
	}
	return r.show(&r.begun[s], show)
}
