package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/store"
)

var (
	device = iothub.ID{Device: "edge1"}
	filter = iothub.ID{Device: "edge1", Module: "filter"}
	key    = iothub.NewKey()
)

// bed is an Upstream between a real store and a scripted hub. Everything runs in the test's bubble, which ends only when every
// goroutine of it has.
type bed struct {
	*Upstream
	hub    *hub
	store  *store.Store
	twins  *twin.Keeper
	up     chan struct{}
	logs   *logs
	cancel context.CancelFunc // ends the Upstream
	hangUp context.CancelFunc // ends the hub
	ran    sync.WaitGroup
}

type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// start opens a store and runs an Upstream for ids on it. stop must be called before the bubble ends.
func start(t *testing.T, edit func(*bed, *Config), ids ...iothub.ID) *bed {
	t.Helper()
	b := &bed{up: make(chan struct{}, 1), logs: &logs{}}
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(context.Background())
	hubCtx, hangUp := context.WithCancel(context.Background())
	b.hangUp = hangUp
	cert, roots := certtest.New(t, hubName)
	b.hub = newHub(hubCtx, t, cert)
	var err error
	if b.store, err = store.Open(store.Config{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	running, stopStore := context.WithCancel(context.Background())
	b.ran.Go(func() { _ = b.store.Run(running) })
	if b.twins, err = twin.NewKeeper(b.store.Docs()); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Hub: hubName, TLS: &tls.Config{RootCAs: roots}, Dial: b.hub.dial,
		Credential: func(id iothub.ID) (iothub.Secret, *tls.Certificate, error) {
			token, err := iothub.MintToken(id.Resource(hubName), "", time.Now().Add(time.Hour), key.Signer())
			return token, nil, err
		},
		Queue: b.store.Queue(), Twins: b.twins, LinkUp: b.up, Logger: slog.New(slog.NewTextHandler(b.logs, nil)),
	}
	if edit != nil {
		edit(b, &cfg)
	}
	if b.Upstream, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	b.SetIdentities(ids)
	b.ran.Go(func() {
		defer stopStore()
		if err := b.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return b
}

// stop ends everything and waits for it.
func (b *bed) stop(t *testing.T) {
	t.Helper()
	b.cancel()
	b.ran.Wait()
	b.hangUp()
	b.hub.conns.Wait()
	if err := b.store.Close(); err != nil {
		t.Errorf("close store: %v", err)
	}
}

// put stores n messages of id, numbered from first.
func (b *bed) put(t *testing.T, id iothub.ID, first, n int) {
	t.Helper()
	recs := make([]store.Record, n)
	for i := range recs {
		recs[i] = record(t, id, fmt.Sprint(first+i))
	}
	if err := b.store.Queue().Append(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) putBody(t *testing.T, id iothub.ID, body string) {
	t.Helper()
	if err := b.store.Queue().Append(t.Context(), record(t, id, body)); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) putRaw(t *testing.T, id iothub.ID, raw []byte) {
	t.Helper()
	if err := b.store.Queue().Append(t.Context(), inLane(id, raw)); err != nil {
		t.Fatal(err)
	}
}

func record(t *testing.T, id iothub.ID, body string) store.Record {
	t.Helper()
	m, err := message.FromPublish(id, iothub.Bag{{Key: iothub.PropOutput, Value: "out"}, {Key: "k", Value: "a b"}}, []byte(body), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return inLane(id, m.Append(nil))
}

func inLane(id iothub.ID, raw []byte) store.Record {
	lane := "upstream/_"
	if id.IsModule() {
		lane = "upstream/" + id.Module
	}
	return store.Record{Body: raw, Entries: []store.Entry{{Sink: lane}}}
}

// left is how many messages are not acknowledged.
func (b *bed) left() int {
	n := 0
	for _, s := range b.store.Queue().Stats() {
		n += int(s.Messages)
	}
	return n
}

// bodies are what the hub got of id, in order, each at its first coming.
func (b *bed) bodies(id iothub.ID) []string {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	var out []string
	seen := map[string]bool{}
	for _, m := range b.hub.messages {
		if m.id == id.String() && !seen[m.body] {
			seen[m.body] = true
			out = append(out, m.body)
		}
	}
	return out
}

func numbers(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(i)
	}
	return out
}

// settle lets time pass, and then everything come to rest.
func settle(d time.Duration) {
	<-time.After(d) // of the bubble
	synctest.Wait()
}

func TestIdentitiesComeAndGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var changes atomic.Int32
		b := start(t, nil, device, filter)
		b.OnStatus(func() { changes.Add(1) })
		defer b.stop(t)
		settle(time.Second)
		b.SetIdentities([]iothub.ID{device})
		b.put(t, filter, 0, 1)
		settle(time.Minute)
		if s := b.Status(); len(s) != 1 || s[0].ID != device || s[0].Attempts != 1 {
			t.Errorf("got %+v, want the device, undisturbed", s)
		}
		b.SetIdentities([]iothub.ID{device, filter})
		b.SetIdentities(nil)
		b.SetIdentities([]iothub.ID{filter})
		settle(time.Minute)
		if s := b.Status(); len(s) != 1 || s[0].ID != filter || !s[0].Connected || b.left() != 0 {
			t.Errorf("got %+v, %d left, want the module, connected and drained", s, b.left())
		}
		if n := changes.Load(); n < 4 {
			t.Errorf("told of %d changes, want at least 4", n)
		}
		var text bytes.Buffer
		if err := b.WriteMetrics(&text); err != nil || !strings.Contains(text.String(), "sandpiper_upstream_connected{identity=\"edge1/filter\"} 1\n") {
			t.Errorf("metrics: %v\n%s", err, text.String())
		}
	})
}

func TestHandshakesAreCapped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := 0, 0
		var ids []iothub.ID
		for i := range 20 {
			ids = append(ids, iothub.ID{Device: "edge1", Module: fmt.Sprint("m", i)})
		}
		b := start(t, func(b *bed, c *Config) {
			c.Handshakes = 3
			b.hub.judge = func(int, mqtt.Hello) mqtt.Code {
				return mqtt.Accepted
			}
			c.Credential = func(id iothub.ID) (iothub.Secret, *tls.Certificate, error) {
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				<-time.After(time.Second)
				mu.Lock()
				now--
				mu.Unlock()
				token, err := iothub.MintToken(id.Resource(hubName), "", time.Now().Add(time.Hour), key.Signer())
				return token, nil, err
			}
		}, ids...)
		defer b.stop(t)
		settle(20 * time.Second)
		for _, s := range b.Status() {
			if !s.Connected {
				t.Errorf("%s is not connected: %s", s.ID, s.LastError)
			}
		}
		if most != 3 {
			t.Errorf("at a time: got %d, want 3", most)
		}
	})
}
