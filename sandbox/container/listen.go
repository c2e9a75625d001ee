package container

import (
	"errors"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// inside has open make a socket in the network namespace of a process. A thread enters
// the namespace and is thrown away with its goroutine: it is never unlocked, so
// nothing else ever runs there. The socket stays.
func inside(p *pidfd, open func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := p.control(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) })
		if errors.Is(err, syscall.ESRCH) {
			err = sandbox.ErrEnded
		}
		if err == nil {
			err = open()
		}
		done <- err
	}()
	return <-done
}
