package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// chunk is the most output that is taken at once, in bytes: what a tee into a fresh pipe holds.
const chunk = 64 << 10

// source is where output of a module comes from. It is looked at first and taken when it is in the file: an agent that is killed in
// between leaves it in place, and the next one writes it again. Nothing is lost; the last lines may be there twice.
type source interface {
	peek(p []byte) (int, error) // waits for output; once interrupted it does not wait, and gives 0 when there is none
	take(n int) error           // drops what was peeked
	interrupt()                 // for good
	close() error
}

// fifo is the module's log FIFO. The second pipe is where tee(2) copies to.
type fifo struct {
	f    *os.File
	conn syscall.RawConn
	copy [2]int // read and write end
}

func openFIFO(path string) (source, error) {
	f, err := sandbox.OpenLog(path)
	if err != nil {
		return nil, err
	}
	q := &fifo{f: f}
	if q.conn, err = f.SyscallConn(); err != nil {
		f.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := unix.Pipe2(q.copy[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		f.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return q, nil
}

func (q *fifo) peek(p []byte) (int, error) {
	var n int64
	var failure error
	look := func(fd uintptr) bool {
		for {
			n, failure = unix.Tee(int(fd), q.copy[1], len(p), unix.SPLICE_F_NONBLOCK)
			if !errors.Is(failure, unix.EINTR) {
				return !errors.Is(failure, unix.EAGAIN)
			}
		}
	}
	err := q.conn.Read(look)
	if errors.Is(err, os.ErrDeadlineExceeded) { // interrupted: only what is there
		err = q.conn.Control(func(fd uintptr) { look(fd) })
		if errors.Is(failure, unix.EAGAIN) {
			return 0, nil
		}
	}
	if err != nil {
		return 0, err
	}
	if failure != nil {
		return 0, os.NewSyscallError("tee", failure)
	}
	return readAll(q.copy[0], p[:n])
}

func (q *fifo) take(n int) error {
	var failure error
	left := make([]byte, n)
	// Control, as it does not care about interrupt: what is in the file must be taken.
	err := q.conn.Control(func(fd uintptr) { _, failure = readAll(int(fd), left) })
	return errors.Join(err, failure)
}

// readAll fills p from a pipe that is known to hold as much.
func readAll(fd int, p []byte) (int, error) {
	for got := 0; got < len(p); {
		n, err := unix.Read(fd, p[got:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return got, errors.Join(os.NewSyscallError("read", err), io.ErrUnexpectedEOF)
		}
		got += n
	}
	return len(p), nil
}

func (q *fifo) interrupt() { _ = q.f.SetReadDeadline(time.Unix(1, 0)) } // only fails on files that cannot wait

func (q *fifo) close() error {
	return errors.Join(q.f.Close(), unix.Close(q.copy[0]), unix.Close(q.copy[1]))
}

// collect writes output of a module to its log until ctx ends, and then what is left in the pipe. When the log cannot be written,
// output is dropped and the drop noted, as a module must not stand still because the disk is full.
func collect(ctx context.Context, from source, to *logFile, log *slog.Logger) {
	stop := context.AfterFunc(ctx, from.interrupt)
	defer stop()
	buf := make([]byte, chunk)
	dropped := 0
	for last := sandbox.LogPipe; last > 0; {
		n, err := from.peek(buf)
		if n == 0 && ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Error("log not collected any more", "err", err)
			return
		}
		if ctx.Err() != nil {
			last -= n // a module that goes on printing is left to the next agent
		}
		if dropped > 0 {
			note := fmt.Sprintf("\n--- %d bytes of output dropped: the log could not be written\n", dropped)
			if _, err := to.Write([]byte(note)); err == nil {
				log.Warn("log is written again", "dropped", dropped)
				dropped = 0
			}
		}
		if _, err := to.Write(buf[:n]); err != nil {
			if dropped == 0 {
				log.Error("log cannot be written, output is dropped", "err", err)
			}
			dropped += n
		}
		if err := from.take(n); err != nil {
			log.Error("log not collected any more", "err", err)
			return
		}
	}
}
