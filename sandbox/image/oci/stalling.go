package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// slowest is what a transfer must bring, in bytes per second.
const slowest = 1 << 10

var errStalled = errors.New("stalled")

// stalling is a body that ends when it brings too little for too long. Read and Close belong to one goroutine.
type stalling struct {
	io.Reader

	body   io.Closer
	ctx    context.Context //nolint:containedctx // lives for one body
	cancel context.CancelCauseFunc
	timer  *time.Timer
	got    atomic.Int64
}

func newStalling(ctx context.Context, cancel context.CancelCauseFunc, body io.Closer, from io.Reader, stall time.Duration) *stalling {
	s := &stalling{Reader: from, body: body, ctx: ctx, cancel: cancel}
	least := int64(stall.Seconds() * slowest)
	s.timer = time.AfterFunc(stall, func() {
		if s.got.Swap(0) < least {
			cancel(errStalled)
			return
		}
		s.timer.Reset(stall)
	})
	return s
}

func (s *stalling) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.got.Add(int64(n))
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if errors.Is(context.Cause(s.ctx), errStalled) {
		err = errStalled
	}
	if _, refused := errors.AsType[*bundle.Error](err); refused {
		return n, err
	}
	return n, fmt.Errorf("%w: %w", ErrConnection, err)
}

func (s *stalling) Close() error {
	s.timer.Stop()
	s.cancel(nil)
	return s.body.Close()
}
