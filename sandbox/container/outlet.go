package container

import (
	"context"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runc/libcontainer"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// lastOutput is how long nothing may come from a process that has ended until its output counts as whole: a child that it left behind
// holds the other side for as long as it likes.
const lastOutput = time.Second

// outlet carries what a process prints to its writers.
type outlet struct {
	theirs, ours []*os.File
	ended        atomic.Bool
	copying      sync.WaitGroup
}

// streams gives a process its standard output and error. Where both go to one writer they come in their order, and one at a time.
func (o *outlet) streams(p *libcontainer.Process, c sandbox.Command) error {
	stdout, err := o.file(c.Stdout)
	if err != nil {
		return err
	}
	stderr := stdout
	if c.Stderr == nil || c.Stderr != c.Stdout {
		if stderr, err = o.file(c.Stderr); err != nil {
			return err
		}
	}
	if stdout != nil {
		p.Stdout = stdout
	}
	if stderr != nil {
		p.Stderr = stderr
	}
	return nil
}

// file is what the process prints to, for w to get it; nil drops it. An os.File is handed over as it is.
func (o *outlet) file(w io.Writer) (*os.File, error) {
	if w == nil {
		return nil, nil
	}
	if f, ok := w.(*os.File); ok {
		return f, nil
	}
	r, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.theirs, o.ours = append(o.theirs, theirs), append(o.ours, r)
	o.copying.Go(func() { o.carry(r, w) })
	return theirs, nil
}

func (o *outlet) carry(r *os.File, w io.Writer) {
	defer func() { _ = r.Close() }() // only a descriptor
	buf := make([]byte, 32<<10)
	for {
		if o.ended.Load() {
			_ = r.SetReadDeadline(time.Now().Add(lastOutput)) // a pipe takes it
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// started leaves the process alone with its side.
func (o *outlet) started() {
	for _, f := range o.theirs {
		_ = f.Close() // the process has its own
	}
	o.theirs = nil
}

// finish returns when all that the process printed has been taken, or ctx has ended. Nothing is written after that.
func (o *outlet) finish(ctx context.Context) {
	o.started()
	o.ended.Store(true)
	for _, r := range o.ours {
		_ = r.SetReadDeadline(time.Now().Add(lastOutput)) // it may be closed
	}
	stop := context.AfterFunc(ctx, func() {
		for _, r := range o.ours {
			_ = r.Close() // ends a read
		}
	})
	defer stop()
	o.copying.Wait()
}
