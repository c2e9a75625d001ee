package supervisor

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// chunk is the most output that is taken at once, in bytes.
const chunk = 64 << 10

// source is where output of a module comes from.
type source interface {
	// wait returns how many bytes there are, at least one; once interrupted it does not wait, and gives 0 when there are none.
	wait() (int, error)
	// move takes up to n bytes to that place of a file in one step: whatever is killed, a byte is in the source or in the file.
	move(to *os.File, at int64, n int) (int, error)
	// read takes bytes.
	read(p []byte) (int, error)
	interrupt() // for good
	close() error
}

// fifo is one of the module's log FIFOs.
type fifo struct {
	f    *os.File
	conn syscall.RawConn
}

func openFIFO(path string) (source, error) {
	f, err := sandbox.OpenLog(path)
	if err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &fifo{f, conn}, nil
}

func (q *fifo) wait() (int, error) {
	var n int
	var failure error
	look := func(fd uintptr) bool {
		n, failure = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		return n > 0 || failure != nil
	}
	err := q.conn.Read(look)
	if errors.Is(err, os.ErrDeadlineExceeded) { // interrupted: only what is there
		err = q.conn.Control(func(fd uintptr) { look(fd) })
	}
	return n, errors.Join(err, failure)
}

func (q *fifo) move(to *os.File, at int64, n int) (int, error) {
	var moved int
	var failure error
	// Control, as it does not care about interrupt; a module may read its own output, so this must not wait.
	err := q.conn.Control(func(fd uintptr) {
		out := int(to.Fd())
		for {
			got, err := unix.Splice(int(fd), nil, out, &at, n, unix.SPLICE_F_NONBLOCK)
			moved, failure = int(got), err // an int on 32-bit machines, an int64 elsewhere
			if !errors.Is(failure, unix.EINTR) {
				break
			}
		}
	})
	if errors.Is(failure, unix.EAGAIN) {
		failure = nil
	}
	return max(moved, 0), errors.Join(err, os.NewSyscallError("splice", failure))
}

func (q *fifo) read(p []byte) (int, error) {
	var n int
	var failure error
	err := q.conn.Control(func(fd uintptr) {
		for {
			n, failure = unix.Read(int(fd), p)
			if !errors.Is(failure, unix.EINTR) {
				break
			}
		}
	})
	if errors.Is(failure, unix.EAGAIN) {
		failure = nil
	}
	return max(n, 0), errors.Join(err, os.NewSyscallError("read", failure))
}

func (q *fifo) interrupt() { _ = q.f.SetReadDeadline(time.Unix(1, 0)) } // only fails on files that cannot wait

func (q *fifo) close() error { return q.f.Close() }

// collector moves one stream of a module into its log until ctx ends, and then what is left in the pipe.
type collector struct {
	stream Stream
	from   source
	to     *logFile
	log    *slog.Logger
}

// run keeps what the module's rate allows and drops the rest, a whole number of lines, with a note in its place. When the log cannot be
// written, output is dropped too, as a module must not stand still because the disk is full.
func (c collector) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, c.from.interrupt)
	defer stop()
	for last := sandbox.LogPipe; last > 0; {
		n, err := c.from.wait()
		if n == 0 && err == nil && ctx.Err() != nil {
			return
		}
		if err != nil {
			c.log.Error("log not collected any more", "stream", c.stream.String(), "err", err)
			return
		}
		n = min(n, chunk)
		if c.to.allows(n) {
			if n, err = c.to.take(c.stream, c.from, n); err != nil {
				c.log.Error("log cannot be written, output is dropped", "err", err)
				n = c.drop(ctx, err)
			}
		} else {
			n = c.drop(ctx, nil)
		}
		if ctx.Err() != nil {
			last -= max(n, 1) // a module that goes on printing is left to the next agent
		}
	}
}

// How often output is dropped: a module that floods its log waits for its own flood, and not the agent with it.
const (
	dropPause = 5 * time.Millisecond
	idlePause = 100 * time.Millisecond
)

// drop takes output and keeps none of it until the rate, or the disk, allows some again. The line that was begun is finished first, and the
// one that is begun at the end is kept: what is missing are whole lines.
func (c collector) drop(ctx context.Context, broken error) (taken int) {
	if broken == nil && c.to.loud() {
		c.log.Warn("module prints more than its log takes, lines are dropped", "stream", c.stream.String(), "bytes_per_second", c.to.rate)
	}
	note := drop{stream: c.stream}
	begun := 0 // bytes of the begun line that may still be kept
	if broken == nil && c.to.midLine(c.stream) {
		begun = maxLine
	}
	buf := make([]byte, chunk)
	var tail []byte // of the line that is not finished
	for {
		n, err := c.from.read(buf)
		if err != nil {
			c.log.Error("log not collected any more", "stream", c.stream.String(), "err", err)
			return taken
		}
		taken += n
		text := buf[:n]
		if begun > 0 && n > 0 {
			end := bytes.IndexByte(text, '\n') + 1
			if end == 0 {
				end = n
			}
			end = min(end, begun)
			if begun -= end; c.to.put(c.stream, text[:end]) != nil || text[end-1] == '\n' {
				begun = 0
			}
			text = text[end:]
		}
		tail = note.add(tail, text)
		failed := c.to.note(&note)
		over := c.to.recovered()
		if broken != nil {
			over = failed == nil
		}
		if over || ctx.Err() != nil && n == 0 {
			if broken != nil && failed == nil {
				c.log.Warn("log is written again", "dropped", note.bytes)
			}
			if len(tail) > 0 && c.to.put(c.stream, tail) != nil {
				c.log.Warn("a line of the log is cut", "stream", c.stream.String())
			}
			return taken
		}
		pause := time.NewTimer(dropPause)
		if n == 0 {
			pause.Reset(idlePause)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// drop is output that is missing from one place of a log.
type drop struct {
	stream       Stream
	lines, bytes uint64

	segment      int    // where the note stands; 0 = nowhere yet
	at           int64  // the same
	toldL, toldB uint64 // what the note says
}

// add counts the whole lines of text as dropped, begun being the beginning of its first, and returns the line that it begins.
func (d *drop) add(begun, text []byte) []byte {
	at := bytes.LastIndexByte(text, '\n')
	switch {
	case at >= 0:
		d.lines += uint64(bytes.Count(text, []byte{'\n'}))
		d.bytes += uint64(len(begun) + at + 1)
		return append(begun[:0], text[at+1:]...)
	case len(begun)+len(text) <= maxLine:
		return append(begun, text...)
	}
	d.bytes += uint64(len(text))
	return begun
}
