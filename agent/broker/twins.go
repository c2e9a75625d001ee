package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// twinGet answers with the whole twin. The answer goes to the connection that asked, whether or not it subscribed: SDKs subscribe
// once in the life of a process, and Node waits for ever.
func (c *client) twinGet(rid string) {
	if rid == "" {
		c.once("twin request without $rid")
		c.close(errors.New("twin request without $rid"))
		return
	}
	qos, _ := c.session.qos(iothub.FeatureTwinResults)
	d := iothub.Delivery{Kind: iothub.TwinResult, Status: 200, RequestID: rid}
	c.mu.Lock() // a patch must not overtake the older whole
	snapshot := c.b.cfg.Twins.Snapshot(c.id)
	if snapshot.Lost { // empty would be taken for the truth; SDKs ask again
		c.mu.Unlock()
		c.once("twin was lost by the disk, it is served when the hub has given it again")
		c.fail(rid, iothub.CodeUnavailable, errors.New("the twin is not here yet"))
		return
	}
	err := c.conn.Send(d.Topic(), snapshot.Client(), qos, nil)
	seen := err == nil && snapshot.DesiredVersion != c.shown
	if seen {
		c.shownLocked(snapshot.DesiredVersion, qos)
	}
	c.mu.Unlock()
	switch {
	case err != nil: // so that the client notices
		c.close(err)
	case seen:
		c.remember(snapshot.DesiredVersion)
	}
}

// twinPatch merges into the reported properties and answers when that is durable. Every refusal has a JSON body with an
// errorCode: Node looks nowhere else.
func (c *client) twinPatch(rid string, patch []byte) {
	version, err := c.b.cfg.Twins.PatchReported(context.Background(), c.id, patch)
	if rid == "" { // edgeHub does the same: processed, not answered
		return
	}
	var limit *twin.LimitError
	switch {
	case err == nil:
		c.result(iothub.Delivery{Kind: iothub.TwinResult, Status: 204, RequestID: rid, Version: version}, nil)
	case errors.As(err, &limit):
		c.once("reported properties refused", "err", err)
		c.fail(rid, iothub.CodeInvalid, err)
	default:
		c.b.cfg.Logger.Error("reported properties not stored", "identity", c.id.String(), "err", err)
		c.fail(rid, iothub.CodeInternal, err)
	}
}

func (c *client) fail(rid string, code int, err error) {
	e := iothub.NewError(code, err.Error(), c.b.cfg.Now())
	c.result(iothub.Delivery{Kind: iothub.TwinResult, Status: e.Status(), RequestID: rid}, e.Body())
}

// result sends an answer to a twin request. When it cannot be sent the connection is ended so that the client notices.
func (c *client) result(d iothub.Delivery, body []byte) {
	qos, _ := c.session.qos(iothub.FeatureTwinResults)
	if err := c.send(d.Topic(), body, qos, nil); err != nil {
		c.close(err)
	}
}

// desiredChanged tells a connected client of a change of its desired properties.
func (b *Broker) desiredChanged(change twin.Change) {
	b.mu.Lock()
	c := b.clients[change.ID]
	b.mu.Unlock()
	if c != nil {
		c.showDesired()
	}
}

// showDesired sends what the client has not seen yet of its desired properties, if it listens to them. Also after a reconnect:
// Node does not ask again, and what changed meanwhile would pass it by.
func (c *client) showDesired() {
	qos, _ := c.session.qos(iothub.FeatureDesired)
	c.mu.Lock()
	if !c.desired || c.conn == nil {
		c.mu.Unlock()
		return
	}
	change, news := c.b.cfg.Twins.DesiredSince(c.id, c.shown)
	if !news {
		c.mu.Unlock()
		return
	}
	d := iothub.Delivery{Kind: iothub.DesiredPatch, Version: change.Version}
	var acked func(error)
	if qos > 0 {
		acked = func(err error) {
			if err == nil {
				c.remember(change.Version)
			}
		}
	}
	err := c.conn.Send(d.Topic(), change.Patch, qos, acked)
	if err == nil {
		c.shownLocked(change.Version, qos)
	}
	conn := c.conn
	c.mu.Unlock()
	switch {
	case err != nil:
		conn.Close(err)
	case qos == 0:
		c.remember(change.Version)
	}
}

// doubt is that the client may not have got what was sent at quality 0: it had version before until then for sure.
type doubt struct {
	before int64
	at     time.Time
}

// shownLocked notes that the client was sent a desired version.
func (c *client) shownLocked(version int64, qos byte) {
	before := c.shown
	c.shown = version
	if qos > 0 || before == 0 {
		return
	}
	now := c.b.cfg.Now()
	c.doubts = slices.DeleteFunc(c.doubts, func(d doubt) bool { return now.Sub(d.at) > c.silence() })
	if n := len(c.doubts); n == 0 || now.Sub(c.doubts[n-1].at) >= time.Second { // of one second the oldest will do
		c.doubts = append(c.doubts, doubt{before: before, at: now})
	}
}

// silence is how long before its end a connection may have carried nothing: its keep-alive and half of it, and what was on its way when it fell silent.
func (c *client) silence() time.Duration {
	const longest, underway = 15 * time.Minute, 10 * time.Second // mqtt caps the keep-alive at ten minutes
	if k := c.hello.KeepAlive * 3 / 2; k > 0 && k < longest {
		return k + underway
	}
	return longest + underway
}

// doubtShown takes back what was sent at quality 0 while the link may already have been dead: the next connection is sent it again. Node does not ask
// again by itself; told twice, it merges the same values.
func (c *client) doubtShown() {
	now := c.b.cfg.Now()
	c.mu.Lock()
	i := slices.IndexFunc(c.doubts, func(d doubt) bool { return now.Sub(d.at) <= c.silence() })
	var before int64
	if i >= 0 {
		before = c.doubts[i].before
	}
	c.mu.Unlock()
	if i >= 0 {
		c.remember(before)
	}
}

// remember notes which desired version the client has. It may be lower than before: a twin that was made anew starts again.
func (c *client) remember(version int64) {
	err := c.session.change(context.Background(), func(rec record) record {
		rec.Desired = version
		return rec
	})
	if err != nil && !errors.Is(err, errGone) {
		c.b.cfg.Logger.Warn("delivered version not stored, it may be delivered again", "identity", c.id.String(), "err", err)
	}
}
