package image

import (
	"context"
	"errors"
	"runtime"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

const (
	scrubEvery = 7 * 24 * time.Hour // an image that was not read whole for so long is read
	scrubLook  = time.Hour          // how often it is asked which those are; the first time after so long, when the device has started
)

// Run scrubs in the background until ctx ends: every image is read whole once a week and repaired where it is rotten. It returns nil.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(scrubLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := s.Scrub(ctx, scrubEvery); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("images were not all scrubbed", "err", err)
		}
	}
}

// Scrub reads every image that was not read whole for that long, the one that waited longest first, and repairs what is damaged. It
// returns how many were damaged; one that cannot be repaired is in the log, and is looked at again after a seventh of that. It runs on
// a thread of the lowest priority for processor and disk.
func (s *Store) Scrub(ctx context.Context, every time.Duration) (damaged int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and its priorities with it
		humble()
		damaged, err = s.scrub(ctx, every)
	}()
	<-done
	return damaged, err
}

func (s *Store) scrub(ctx context.Context, every time.Duration) (damaged int, err error) {
	for _, img := range s.due(every) {
		n, err := s.Repair(ctx, img.Digest)
		switch {
		case ctx.Err() != nil:
			return damaged, context.Cause(ctx)
		case errors.Is(err, ErrClosed):
			return damaged, err
		case errors.Is(err, bundle.ErrAbsent): // collected in between
			continue
		case err != nil:
			damaged++
			s.cfg.Logger.Error("installed image is damaged and cannot be repaired", "module", img.Name, "image", img.Digest.String(), "err", err)
			s.mu.Lock()
			s.checkedLocked(img.Digest, every-every/7)
			s.mu.Unlock()
		case n > 0:
			damaged++
		}
	}
	return damaged, nil
}

// due lists what was not read whole for that long, or by a clock that was ahead of today's.
func (s *Store) due(every time.Duration) []Image {
	now := s.cfg.Now()
	var list []Image
	for _, img := range s.List() {
		if at := s.Standing(img).Checked; at.After(now) || now.Sub(at) >= every {
			list = append(list, img)
		}
	}
	sort.Slice(list, func(i, j int) bool { return s.Standing(list[i]).Checked.Before(s.Standing(list[j]).Checked) })
	return list
}

// humble takes the lowest priorities for the calling thread. Where that is not to be had it runs as everybody does.
func humble() {
	const (
		lowest  = 19
		process = 1       // IOPRIO_WHO_PROCESS; 0 is the calling thread
		idle    = 3 << 13 // IOPRIO_CLASS_IDLE: only when nobody else wants the disk
	)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, lowest)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, process, 0, idle)
}
