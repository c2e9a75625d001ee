package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ExecRequest is a program to run in a module's sandbox.
type ExecRequest struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"` // KEY=value, on top of the module's own
	Cwd  string   `json:"cwd,omitempty"`
	User string   `json:"user,omitempty"` // "uid", "uid:gid" or names; default: the module's own
	// Terminal gives it a terminal of that size; its output is all standard output then.
	Terminal *Size `json:"terminal,omitempty"`
}

// Size is that of a terminal, in characters.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Streams are those of a program that is run for an operator.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Resize   <-chan Size // of the terminal
}

const (
	execProtocol = "sandpiper-exec"
	maxExec      = 256 << 10 // bytes of an ExecRequest
)

// exec runs a program and carries its streams over the connection of the request.
func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	var want ExecRequest
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxExec))
	if err == nil {
		err = json.Unmarshal(body, &want)
	}
	if err == nil && len(want.Args) == 0 {
		err = errors.New("there is no program to run")
	}
	if err == nil && r.Header.Get("Upgrade") != execProtocol {
		err = fmt.Errorf("want Upgrade: %s", execProtocol)
	}
	if err != nil {
		s.answer(w, nil, fmt.Errorf("exec: %w: %w", err, ErrRefused))
		return
	}
	conn, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.answer(w, nil, fmt.Errorf("exec: %w", err))
		return
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return // it is gone
	}
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", execProtocol); err != nil {
		return // nobody is there any more
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	out := &frameWriter{w: conn}
	stdin, feed := io.Pipe()
	sizes := make(chan Size, 1)
	go func() { // ends with the connection
		defer cancel() // the operator is gone, and the program with him
		receive(in.Reader, feed, sizes)
	}()
	go untilGone(ctx, conn, cancel)
	code, err := s.cfg.Exec(ctx, r.PathValue("module"), want, Streams{
		In: stdin, Out: stream{out, frameStdout}, Err: stream{out, frameStderr}, Resize: sizes,
	})
	_ = stdin.Close() // what is still typed is for nobody
	if err != nil {
		err = out.write(frameFault, []byte(words(err)))
	} else {
		err = out.write(frameExit, binary.BigEndian.AppendUint32(nil, uint32(code)))
	}
	if err != nil {
		s.cfg.Logger.Debug("end of a program not told", "err", err)
	}
}

// hangUpPace is how often the other side is looked at: while a program does not read, what comes from there is not read either.
const hangUpPace = time.Second

// untilGone ends a program whose operator has hung up.
func untilGone(ctx context.Context, conn net.Conn, cancel context.CancelFunc) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	pace := time.NewTicker(hangUpPace)
	defer pace.Stop()
	for {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
		gone := false
		err := raw.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			n, err := unix.Poll(fds, 0)
			gone = err == nil && n > 0
		})
		if gone || err != nil {
			cancel()
			return
		}
	}
}

// receive takes what the operator sends until the stream ends.
func receive(in io.Reader, stdin *io.PipeWriter, sizes chan Size) {
	defer func() { _ = stdin.Close() }() // never fails
	buf := make([]byte, maxFrame)
	for {
		kind, p, err := readFrame(in, buf)
		switch {
		case err != nil:
			return
		case kind == frameStdin && len(p) == 0:
			_ = stdin.Close() // never fails
		case kind == frameStdin:
			_, _ = stdin.Write(p) // a program that does not read any more misses it
		case kind == frameResize && len(p) == 4:
			size := Size{Rows: binary.BigEndian.Uint16(p), Cols: binary.BigEndian.Uint16(p[2:])}
			select {
			case <-sizes: // only the newest counts
			default:
			}
			sizes <- size
		}
	}
}

// Exec runs a program in a module's sandbox and returns its exit code when it has ended; the end of ctx ends it.
func (c *Client) Exec(ctx context.Context, module string, want ExecRequest, with Streams) (int, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", c.path)
	if err != nil {
		return 0, c.explain(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	in := bufio.NewReader(conn)
	err = c.upgrade(ctx, conn, in, module, want)
	code := 0
	if err == nil {
		done := make(chan struct{})
		defer close(done)
		with.send(&frameWriter{w: conn}, done)
		code, err = with.receive(in)
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return code, err
}

// upgrade asks for a program. Once the agent agrees the connection carries frames.
func (c *Client) upgrade(ctx context.Context, conn net.Conn, in *bufio.Reader, module string, want ExecRequest) error {
	body, err := json.Marshal(want)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/modules/"+url.PathEscape(module)+"/exec", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", execProtocol)
	var res *http.Response
	if err = req.Write(conn); err == nil {
		res, err = http.ReadResponse(in, req)
	}
	if err != nil {
		return c.explain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		return refusal(res)
	}
	return nil
}

// send passes on what the operator types, and the size of the terminal, until done is closed.
func (with Streams) send(out *frameWriter, done <-chan struct{}) {
	go func() { // ends with the input, or with the first write after the program
		if with.In != nil {
			_, _ = io.Copy(stream{out, frameStdin}, with.In)
		}
		_ = out.write(frameStdin, nil)
	}()
	go func() {
		for {
			select {
			case size := <-with.Resize:
				_ = out.write(frameResize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, size.Rows), size.Cols))
			case <-done:
				return
			}
		}
	}()
}

// receive passes on what the program prints, until it has ended.
func (with Streams) receive(in io.Reader) (int, error) {
	buf := make([]byte, maxFrame)
	for {
		kind, p, err := readFrame(in, buf)
		switch {
		case err != nil:
			return 0, fmt.Errorf("the agent ended meanwhile: %w", err)
		case kind == frameStdout && with.Out != nil:
			_, err = with.Out.Write(p)
		case kind == frameStderr && with.Err != nil:
			_, err = with.Err.Write(p)
		case kind == frameFault:
			return 0, errors.New(string(p))
		case kind == frameExit && len(p) == 4:
			return int(int32(binary.BigEndian.Uint32(p))), nil
		}
		if err != nil {
			return 0, err
		}
	}
}
