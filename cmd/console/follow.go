package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"time"
)

// AwayMost is how long a verb that follows waits for who is away: an upgrade that fails, and the way back from it, take minutes.
const AwayMost = 10 * time.Minute

const awayPace = 250 * time.Millisecond

// Follower is a verb that goes on until it is interrupted, over restarts and upgrades of the one that answers.
type Follower struct {
	Say io.Writer // standard error of the command
	Who string    // that answers; default "sandpiper: the agent"

	here  bool      // it answered at least once
	since time.Time // when it was away first; zero = it is here
}

// Met notes that there was an answer.
func (f *Follower) Met() { f.here, f.since = true, time.Time{} }

// Again waits a moment after a question that ended with err, or with nil where it should not have ended, and says once that it does. It
// returns err when asking again is of no use: the answer was no, there never was one, or nobody came back for too long.
func (f *Follower) Again(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) { // an answer had begun
		f.Met()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
	case !f.here || !isAway(err):
		return err
	case f.since.IsZero():
		f.since = time.Now()
		fmt.Fprintln(f.Say, f.who()+" is away; waiting")
	case time.Since(f.since) > AwayMost:
		return fmt.Errorf("nobody came back within %s: %w", AwayMost, err)
	}
	return Pause(ctx, awayPace)
}

func (f *Follower) who() string { return cmp.Or(f.Who, "sandpiper: the agent") }

// Pause is an error when ctx ends first.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isAway tells who is not there, or ended over the question, from one that said no.
func isAway(err error) bool {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, fs.ErrNotExist, context.DeadlineExceeded}, func(kind error) bool {
		return errors.Is(err, kind)
	})
}
