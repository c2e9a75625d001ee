package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// LogQuery chooses lines of a module's log.
type LogQuery struct {
	Tail   int       // the last n lines; negative = all that is kept
	Since  time.Time // only lines from then on; zero = no bound
	Follow bool      // go on with what is written from now on, until the context ends
}

// Logs copies lines of a module's output to w, oldest first, each with its time before it.
func (s *Supervisor) Logs(ctx context.Context, module string, q LogQuery, w io.Writer) error {
	u, err := s.unit(module)
	if err != nil {
		return err
	}
	return u.output.copy(ctx, q, w)
}

func (l *logFile) copy(ctx context.Context, q LogQuery, w io.Writer) error {
	skip, err := l.before(q.Tail)
	if err != nil {
		return err
	}
	r, err := l.reader()
	if err != nil {
		return err
	}
	defer r.Close()
	since := ""
	if !q.Since.IsZero() {
		since = q.Since.UTC().Format(stampLayout)
	}
	var line []byte // of a line that is not finished
	in := bufio.NewReaderSize(r, 32<<10)
	for {
		// What to wait for is looked up before reading: what is written in between is not missed.
		more, err := r.follow()
		if err != nil {
			return err
		}
		for {
			piece, err := in.ReadSlice('\n')
			line = append(line, piece...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return fmt.Errorf("read log: %w", err)
			}
			if err != nil {
				continue
			}
			if skip > 0 {
				skip--
			} else if len(line) < stampSize || string(line[:stampSize-1]) >= since {
				if _, err := w.Write(line); err != nil {
					return err
				}
			}
			line = line[:0]
		}
		if !q.Follow {
			if skip == 0 && len(line) > 0 {
				_, err = w.Write(append(line, '\n'))
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

// before counts the lines before the last n.
func (l *logFile) before(n int) (int, error) {
	if n < 0 {
		return 0, nil
	}
	r, err := l.reader()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	lines, last := 0, byte('\n')
	buf := make([]byte, 32<<10)
	for {
		got, err := r.Read(buf)
		if got > 0 {
			lines += bytes.Count(buf[:got], []byte{'\n'})
			last = buf[got-1]
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read log: %w", err)
		}
	}
	if last != '\n' {
		lines++
	}
	return max(0, lines-n), nil
}
