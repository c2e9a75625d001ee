package container

import (
	"context"
	"errors"
	"net"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// listenInside opens a listener in the network namespace of a process. A thread
// enters the namespace and is thrown away with its goroutine: it is never
// unlocked, so nothing else ever runs there. The socket stays.
func listenInside(p *pidfd, network, addr string) (net.Listener, error) {
	type result struct {
		l   net.Listener
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		err := p.control(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) })
		if errors.Is(err, syscall.ESRCH) {
			err = sandbox.ErrEnded
		}
		if err != nil {
			done <- result{err: err}
			return
		}
		l, err := new(net.ListenConfig).Listen(context.Background(), network, addr)
		done <- result{l, err}
	}()
	r := <-done
	return r.l, r.err
}
