package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"time"
)

// How long a verb that follows waits for an agent that is away: an upgrade that fails, and the way back from it, take minutes.
const (
	awayMost = 10 * time.Minute
	awayPace = 250 * time.Millisecond
)

// follower is a verb that goes on until it is interrupted, over restarts and upgrades of the agent too.
type follower struct {
	say   io.Writer
	here  bool      // the agent answered at least once
	since time.Time // when it was away first; zero = it is here
}

// met notes that the agent answers.
func (f *follower) met() { f.here, f.since = true, time.Time{} }

// again waits a moment after a question that ended with err, or with nil where it should not have ended, and says once that it does. It
// returns err when asking again is of no use: the agent said no, never answered, or is away for too long.
func (f *follower) again(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) { // an answer had begun
		f.met()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
	case !f.here || !isAway(err):
		return err
	case f.since.IsZero():
		f.since = time.Now()
		fmt.Fprintln(f.say, "sandpiper: the agent is away; waiting")
	case time.Since(f.since) > awayMost:
		return fmt.Errorf("the agent was away for %s: %w", awayMost, err)
	}
	return pause(ctx, awayPace)
}

// pause is an error when ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isAway tells an agent that is not there, or ended over the question, from one that said no.
func isAway(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, fs.ErrNotExist, syscall.ECONNREFUSED, syscall.ECONNRESET}, func(kind error) bool {
		return errors.Is(err, kind)
	})
}
