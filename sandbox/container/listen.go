package container

import (
	"errors"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// inside opens a socket in the network namespace of a process. A thread enters
// the namespace and is thrown away with its goroutine: it is never unlocked, so
// nothing else ever runs there. The socket stays.
func inside[T any](p *pidfd, open func() (T, error)) (T, error) {
	type result struct {
		socket T
		err    error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		var r result
		r.err = p.control(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) })
		if errors.Is(r.err, syscall.ESRCH) {
			r.err = sandbox.ErrEnded
		}
		if r.err == nil {
			r.socket, r.err = open()
		}
		done <- r
	}()
	r := <-done
	return r.socket, r.err
}
