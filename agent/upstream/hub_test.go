package upstream

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

const hubName = "hub.example.net"

// got is one message that the hub took.
type got struct {
	id   string
	bag  string
	body string
	dup  bool // sent on a connection after the first
}

// hubTwin is a twin as the hub keeps it.
type hubTwin struct {
	desired  map[string]any
	version  int64
	reported map[string]any
	patches  []string // reported, as they came
	gets     int
}

// hub is the other end: scripted, on the session loop of the real one.
type hub struct {
	serve func(net.Conn)
	conns sync.WaitGroup

	mu       sync.Mutex
	down     bool                                // dialling fails
	judge    func(n int, h mqtt.Hello) mqtt.Code // of the n-th CONNECT, from 0
	hold     bool                                // messages are taken but not acknowledged
	held     []*mqtt.Publish
	deaf     bool                              // twin requests are not answered
	answer   func(p iothub.Publish, n int) int // status of the n-th twin request, 0 = do it
	dials    []time.Time
	hellos   []mqtt.Hello
	messages []got
	replies  []string // of methods: "rid status body"
	twins    map[string]*hubTwin
	requests int
	open     map[string]*peer
	ended    []error
}

func newHub(ctx context.Context, t *testing.T, cert tls.Certificate) *hub {
	t.Helper()
	h := &hub{twins: map[string]*hubTwin{}, open: map[string]*peer{}}
	server, err := mqtt.New(mqtt.Config{Handler: h, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	if err != nil {
		t.Fatal(err)
	}
	h.serve = func(nc net.Conn) { server.ServeConn(ctx, nc, mqtt.Origin{}) }
	return h
}

// dial is Config.Dial: a connection in memory.
func (h *hub) dial(context.Context, string, string) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials = append(h.dials, time.Now())
	if h.down {
		return nil, errors.New("no route to host")
	}
	near, far := net.Pipe()
	h.conns.Go(func() { h.serve(far) })
	return near, nil
}

// set changes the script.
func (h *hub) set(edit func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	edit()
}

// cut breaks every connection, and with down lets no new one be made.
func (h *hub) cut(down bool) {
	h.mu.Lock()
	h.down = down
	var conns []*mqtt.Conn
	for _, p := range h.open {
		conns = append(conns, p.conn)
	}
	h.mu.Unlock()
	for _, c := range conns {
		c.Close(errors.New("cut by the test"))
	}
}

// release acknowledges what was held, and from now on everything.
func (h *hub) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = false
	for _, p := range h.held {
		p.Ack()
	}
	h.held = nil
}

func (h *hub) twin(id string) *hubTwin {
	t := h.twins[id]
	if t == nil {
		t = &hubTwin{desired: map[string]any{}, version: 1, reported: map[string]any{}}
		h.twins[id] = t
	}
	return t
}

// desire changes a twin by a patch and tells the device, unless silent.
func (h *hub) desire(t *testing.T, id, patch string, silent bool) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var p map[string]any
	if err := json.Unmarshal([]byte(patch), &p); err != nil {
		t.Fatal(err)
	}
	tw := h.twin(id)
	for k, v := range p {
		if v == nil {
			delete(tw.desired, k)
		} else {
			tw.desired[k] = v
		}
	}
	tw.version++
	p["$version"] = tw.version
	body, _ := json.Marshal(p)
	if peer := h.open[id]; peer != nil && !silent {
		_ = peer.conn.Send(iothub.Delivery{Kind: iothub.DesiredPatch, Version: tw.version}.Topic(), body, 0, nil)
	}
}

// call calls a direct method.
func (h *hub) call(id, name, rid, body string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.open[id].conn.Send(iothub.Delivery{Kind: iothub.MethodCall, Name: name, RequestID: rid}.Topic(), []byte(body), 0, nil)
}

// Connect is called by the session loop.
func (h *hub) Connect(_ context.Context, hello mqtt.Hello) (mqtt.Session, mqtt.Code) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.hellos)
	h.hellos = append(h.hellos, hello)
	if h.judge != nil {
		if code := h.judge(n, hello); code != mqtt.Accepted {
			return nil, code
		}
	}
	return &peer{hub: h, id: hello.ClientID, nth: n}, mqtt.Accepted
}

// peer is the hub's side of one connection.
type peer struct {
	hub     *hub
	conn    *mqtt.Conn
	id      string
	nth     int
	filters map[string]bool
}

func (p *peer) Opened(c *mqtt.Conn) {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	p.conn = c
	p.hub.open[p.id] = p
}

func (p *peer) Subscribe(filters []mqtt.Subscription) []byte {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	if p.filters == nil {
		p.filters = map[string]bool{}
	}
	for _, f := range filters {
		p.filters[f.Filter] = true
	}
	return make([]byte, len(filters))
}

func (p *peer) Unsubscribe([]string) {}

func (p *peer) Closed(err error) {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	if p.hub.open[p.id] == p {
		delete(p.hub.open, p.id)
	}
	p.hub.ended = append(p.hub.ended, err)
}

func (p *peer) Publish(m *mqtt.Publish) {
	h := p.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	topic, err := iothub.ParsePublish(m.Topic)
	if err != nil {
		p.conn.Close(err)
		return
	}
	switch topic.Kind {
	case iothub.Telemetry:
		if topic.ID.String() != p.id {
			p.conn.Close(fmt.Errorf("publish as %s on the connection of %s", topic.ID, p.id))
			return
		}
		h.messages = append(h.messages, got{id: p.id, bag: topic.Bag.String(), body: string(m.Payload), dup: p.nth > 0})
		if h.hold {
			h.held = append(h.held, m)
			return
		}
		m.Ack()
	case iothub.MethodResponse:
		h.replies = append(h.replies, fmt.Sprintf("%s %d %s", topic.RequestID, topic.Status, m.Payload))
	case iothub.TwinGet, iothub.TwinPatch:
		p.twinRequest(topic, m.Payload)
	}
}

func (p *peer) twinRequest(topic iothub.Publish, body []byte) {
	h := p.hub
	n := h.requests
	h.requests++
	if h.deaf || !p.filters[iothub.Filter{Feature: iothub.FeatureTwinResults}.String()] {
		return
	}
	result := iothub.Delivery{Kind: iothub.TwinResult, RequestID: topic.RequestID, Status: 200}
	var reply []byte
	tw := h.twin(p.id)
	if h.answer != nil {
		if status := h.answer(topic, n); status != 0 {
			result.Status = status
			reply = iothub.NewError(status*1000, "scripted", time.Now()).Body()
		}
	}
	switch {
	case result.Status != 200:
	case topic.Kind == iothub.TwinGet:
		tw.gets++
		tw.desired["$version"] = tw.version
		reply, _ = json.Marshal(map[string]any{"desired": tw.desired, "reported": tw.reported})
		delete(tw.desired, "$version")
	default:
		result.Status = 204
		tw.patches = append(tw.patches, string(body))
		var patch map[string]any
		if err := json.Unmarshal(body, &patch); err != nil {
			result.Status = 400
		}
		for k, v := range patch {
			if v == nil {
				delete(tw.reported, k)
			} else {
				tw.reported[k] = v
			}
		}
	}
	_ = p.conn.Send(result.Topic(), reply, 0, nil)
}
