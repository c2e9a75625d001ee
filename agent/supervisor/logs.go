package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

const (
	logSize  = 1 << 20  // bytes of one log file before it is rotated
	logFiles = 4        // files kept per module, the current one among them
	logLine  = 16 << 10 // bytes of one line; a longer one is cut into several
	logRead  = 64 << 10 // bytes read at a time
)

// logTime is how a line begins.
const logTime = "2006-01-02T15:04:05.000000Z07:00"

// collect moves what a module prints from its FIFO into rotated files, a time stamp before each line, until ctx ends. What is in the
// pipe then stays there for the next agent: the module holds the pipe open.
func (s *Supervisor) collect(ctx context.Context, seat Seat) {
	log := s.cfg.Logger.With("module", seat.Module.Name)
	if err := os.MkdirAll(filepath.Dir(seat.Log), 0o700); err != nil {
		log.Error("log not collected", "err", err)
		return
	}
	in, err := sandbox.OpenLog(seat.Log)
	if err != nil {
		log.Error("log not collected", "err", err)
		return
	}
	defer in.Close()
	out, err := openLogFile(filepath.Join(s.cfg.LogDir, seat.Module.Name))
	if err != nil {
		log.Error("log not collected", "err", err)
		return
	}
	defer out.Close()
	stop := context.AfterFunc(ctx, func() { _ = in.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 0, logRead)
	for {
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		rest, werr := out.lines(buf, s.cfg.Now())
		if werr != nil {
			log.Error("log line not written", "err", werr)
		}
		buf = buf[:copy(buf[:cap(buf)], rest)]
		if err != nil {
			if len(buf) > 0 { // half a line: better a line too many than a word lost
				_, _ = out.lines(append(buf, '\n'), s.cfg.Now())
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				log.Error("log not collected any more", "err", err)
			}
			return
		}
	}
}

// logFile is the current log of a module.
type logFile struct {
	dir  string
	f    *os.File
	size int64
}

func openLogFile(dir string) (*logFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &logFile{dir: dir}
	return l, l.open()
}

func (l *logFile) path(n int) string {
	if n == 0 {
		return filepath.Join(l.dir, "current")
	}
	return filepath.Join(l.dir, fmt.Sprintf("current.%d", n))
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path(0), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, info.Size()
	return nil
}

// lines writes the whole lines of text and returns what follows them.
func (l *logFile) lines(text []byte, now time.Time) (rest []byte, err error) {
	var out []byte
	stamp := now.UTC().Format(logTime)
	for {
		i := bytes.IndexByte(text, '\n')
		switch {
		case i < 0 && len(text) < logLine:
			return text, l.write(out)
		case i < 0 || i > logLine:
			i = logLine
			out = append(append(append(out, stamp...), ' '), text[:i]...)
			out = append(out, '\n')
			text = text[i:]
		default:
			out = append(append(append(out, stamp...), ' '), text[:i+1]...)
			text = text[i+1:]
		}
	}
}

func (l *logFile) write(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	if l.size > 0 && l.size+int64(len(out)) > logSize {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(out)
	l.size += int64(n)
	return err
}

// rotate makes room: current becomes current.1 and so on, the oldest goes.
func (l *logFile) rotate() error {
	if err := l.f.Close(); err != nil {
		return err
	}
	for n := logFiles - 1; n > 0; n-- {
		if err := os.Rename(l.path(n-1), l.path(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return l.open()
}

func (l *logFile) Close() error { return l.f.Close() }

// LogQuery chooses lines of a module's log.
type LogQuery struct {
	Tail   int       // the last n lines; negative = all that is kept
	Since  time.Time // zero = no bound
	Follow bool
}

// Logs copies lines of a module's log to w, oldest first, and with Follow new ones as they come until ctx ends.
func (s *Supervisor) Logs(ctx context.Context, module string, q LogQuery, w io.Writer) error {
	dir := filepath.Join(s.cfg.LogDir, filepath.Base(module))
	if _, err := os.Stat(filepath.Join(dir, "current")); err != nil {
		if _, known := s.unit(module); known != nil {
			return fmt.Errorf("%w: %s", ErrNoModule, module)
		}
		return nil // it has printed nothing yet
	}
	l := &logFile{dir: dir}
	var lines [][]byte
	var end int64
	for n := logFiles - 1; n >= 0; n-- {
		raw, err := os.ReadFile(l.path(n))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			end = int64(len(raw))
		}
		for line := range bytes.Lines(raw) {
			if youngEnough(line, q.Since) {
				lines = append(lines, line)
			}
		}
	}
	if q.Tail >= 0 && len(lines) > q.Tail {
		lines = lines[len(lines)-q.Tail:]
	}
	if _, err := w.Write(bytes.Join(lines, nil)); err != nil || !q.Follow {
		return err
	}
	return follow(ctx, l.path(0), end, w)
}

func youngEnough(line []byte, since time.Time) bool {
	if since.IsZero() {
		return true
	}
	stamp, _, _ := bytes.Cut(line, []byte(" "))
	at, err := time.Parse(logTime, string(stamp))
	return err != nil || !at.Before(since)
}

// followPace is how often a followed log is looked at.
const followPace = 250 * time.Millisecond

// follow copies what is appended to a file from offset on; a file that is shorter than before was rotated, and is read from its start.
func follow(ctx context.Context, path string, offset int64, w io.Writer) error {
	tick := time.NewTicker(followPace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if info, err := f.Stat(); err == nil && info.Size() < offset {
			offset = 0
		}
		n, err := io.Copy(w, io.NewSectionReader(f, offset, 1<<62-offset))
		f.Close()
		offset += n
		if err != nil {
			return err
		}
	}
}
