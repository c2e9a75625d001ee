package upstream

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

const (
	// answerTime is how long the hub may take to answer a twin request or a subscription.
	answerTime = 30 * time.Second
	// patchGap is between two reported patches of one identity: what a module reports in between goes in one, and one is written to
	// flash as delivered.
	patchGap = time.Second
	// refreshTime is when a twin is read again although nothing was heard, as edgeHub does.
	refreshTime = time.Hour
	// storeAgain is when a twin that could not be stored is tried again.
	storeAgain = time.Minute
)

// waiting is what the twin's alarm is set for.
type waiting uint8

const (
	waitNothing waiting = iota // twinState is not begun
	waitAnswer                 // the hub owes an answer
	waitTurn                   // the next request may be made when the alarm goes off
	waitRefresh                // there is nothing to do until then
)

// twinState is the twin's part of a session: at most one request is under way, fetching goes before reporting. It belongs to the
// session's goroutine.
type twinState struct {
	wantGet   bool
	wantPatch bool
	seen      int64 // highest desired version that the hub spoke of
	begun     bool
	phase     waiting
	alarm     alarm
	retry     backoff

	request uint64 // number of the last request
	getting bool   // the request under way is a GET
	mark    uint64 // else it is a patch with this mark
}

func (t *twinState) await(phase waiting, d time.Duration) {
	t.phase = phase
	t.alarm.set(d)
}

// begin starts with fetching, because only then is it known what a pending report must delete.
func (t *twinState) begin() {
	t.begun, t.wantGet, t.wantPatch = true, true, true
	t.phase = waitRefresh
	t.retry = backoff{first: 2 * time.Second, longest: time.Minute}
}

// hasten lets a request be made now that was to wait.
func (t *twinState) hasten() {
	if t.phase == waitTurn {
		t.phase = waitRefresh
	}
}

func (t *twinState) rid() string { return strconv.FormatUint(t.request, 10) }

// stepTwin makes the next request, if there is one to make and its time has come.
func (s *session) stepTwin() {
	t := &s.twin
	if !t.begun || t.phase == waitAnswer || t.phase == waitTurn || s.draining != nil {
		return
	}
	switch {
	case t.wantGet:
		t.wantGet, t.getting = false, true
		t.request++
		s.publish(iothub.Publish{Kind: iothub.TwinGet, RequestID: t.rid()}, []byte(" "))
	case t.wantPatch:
		patch, mark, ok := s.cfg.Twins.Pending(s.id)
		if !ok {
			t.wantPatch = false
			t.await(waitRefresh, refreshTime)
			return
		}
		t.getting, t.mark = false, mark
		t.request++
		s.publish(iothub.Publish{Kind: iothub.TwinPatch, RequestID: t.rid()}, patch)
	default:
		t.await(waitRefresh, refreshTime)
		return
	}
	t.await(waitAnswer, answerTime)
}

// twinAlarm is what happens when the time that the twin waited for is over.
func (s *session) twinAlarm() error {
	switch t := &s.twin; t.phase {
	case waitAnswer:
		return errNoAnswer
	case waitTurn:
		t.phase = waitRefresh
	case waitRefresh:
		t.wantGet = true
	case waitNothing:
	}
	s.stepTwin()
	return nil
}

// twinResult takes the hub's answer to the request under way.
func (s *session) twinResult(ctx context.Context, d *incoming) {
	t := &s.twin
	if t.phase != waitAnswer || d.RequestID != t.rid() || !t.begun {
		return // of an earlier connection
	}
	t.phase = waitRefresh
	ok := d.Status >= 200 && d.Status < 300
	switch {
	case ok && t.getting:
		s.fetched(ctx, d.body)
	case ok:
		s.delivered(ctx)
	case t.getting:
		t.wantGet = true
		s.later("fetch", d)
	case d.Status >= 400 && d.Status < 500 && d.Status != http.StatusTooManyRequests && d.Status != http.StatusRequestTimeout:
		s.log.Error("hub does not take the reported properties; they are dropped", "err", iothub.ParseError(d.Status, d.body))
		t.wantGet = true // what the hub holds is the truth now
		s.delivered(ctx)
	default:
		s.later("report", d)
	}
	s.stepTwin()
}

// later waits before the request is made again.
func (s *session) later(request string, d *incoming) {
	s.log.Warn("twin request will be made again", "request", request, "err", iothub.ParseError(d.Status, d.body))
	s.twin.await(waitTurn, time.Second+s.twin.retry.next())
}

// fetched takes the whole twin.
func (s *session) fetched(ctx context.Context, whole []byte) {
	t := &s.twin
	if err := s.cfg.Twins.Replace(ctx, s.id, whole); err != nil {
		s.log.Error("twin of the hub could not be taken", "err", err)
		t.wantGet = true
		t.await(waitTurn, storeAgain)
		return
	}
	t.retry.reset()
	if s.cfg.Twins.Snapshot(s.id).DesiredVersion < t.seen {
		t.wantGet = true // a patch came that is newer than this answer
		t.await(waitTurn, patchGap)
	}
}

// delivered notes that the hub holds what was reported.
func (s *session) delivered(ctx context.Context) {
	t := &s.twin
	if err := s.cfg.Twins.Sent(ctx, s.id, t.mark); err != nil {
		s.log.Error("delivery of reported properties could not be noted; they will be sent again", "err", err)
		t.await(waitTurn, storeAgain)
		return
	}
	t.retry.reset()
	t.await(waitTurn, patchGap)
}

// desiredPatch takes a change of desired properties, or fetches the whole twin when one before it was missed.
func (s *session) desiredPatch(ctx context.Context, d *incoming) {
	t := &s.twin
	t.seen = max(t.seen, d.Version)
	gap, err := s.cfg.Twins.ApplyDesired(ctx, s.id, d.body)
	if err != nil {
		s.log.Warn("desired patch could not be taken; the twin is fetched", "err", fmt.Errorf("version %d: %w", d.Version, err))
	}
	if err != nil || gap {
		t.wantGet = true
		s.stepTwin()
	}
}
