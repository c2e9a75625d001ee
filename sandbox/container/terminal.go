package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runc/libcontainer"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// console is the agent's side of a terminal in a sandbox. The terminal belongs
// to the sandbox's own devpts; its other end comes through a socket.
type console struct {
	ours, theirs *os.File // the socket
	master       *os.File // nil before attach
	copying      sync.WaitGroup
}

func newConsole(p *libcontainer.Process, t *sandbox.Terminal) (*console, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	c := &console{ours: os.NewFile(uintptr(pair[0]), "console"), theirs: os.NewFile(uintptr(pair[1]), "console")}
	p.ConsoleSocket = c.theirs
	p.ConsoleHeight, p.ConsoleWidth = t.Rows, t.Cols
	p.Stdin, p.Stdout, p.Stderr = nil, nil, nil
	return c, nil
}

// consolePatience is how long a terminal may take to arrive.
const consolePatience = 10 * time.Second

// attach takes the terminal and connects the streams of the command with it.
func (c *console) attach(ctx context.Context, cmd sandbox.Command) error {
	_ = c.theirs.Close() // the process has its own
	master, err := c.receive()
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	c.master = master
	if cmd.Stdin != nil {
		go func() { // ends with the input, or with the first write after the process
			_, _ = io.Copy(master, cmd.Stdin)
		}()
	}
	c.copying.Go(func() {
		out := cmd.Stdout
		if out == nil {
			out = io.Discard
		}
		_, _ = io.Copy(out, master) // EIO is how a terminal says that nobody holds the other side
	})
	c.copying.Go(func() {
		for {
			select {
			case size := <-cmd.Terminal.Resize:
				_ = c.resize(size) // the process may have ended
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

func (c *console) resize(size sandbox.Size) error {
	raw, err := c.master.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		failure = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
	return errors.Join(err, failure)
}

// receive waits for the descriptor of the terminal.
func (c *console) receive() (*os.File, error) {
	fd := int(c.ours.Fd())
	wait := unix.NsecToTimeval(consolePatience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	var n int
	var err error
	for {
		_, n, _, _, err = unix.Recvmsg(fd, name, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(err, errors.New("none came"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(err, errors.New("none came"))
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // Close then ends reads and writes
		return nil, errors.Join(err, unix.Close(fds[0]))
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

// close gives the terminal back after its last output was read.
func (c *console) close(end context.CancelFunc) {
	end()
	_ = c.ours.Close()   // only a socket
	_ = c.theirs.Close() // closed before, mostly
	if c.master == nil {
		return
	}
	_ = c.master.SetReadDeadline(time.Now().Add(lastOutput)) // a process that was left behind may hold it open
	c.copying.Wait()
	_ = c.master.Close()
}
