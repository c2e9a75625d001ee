package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

const (
	// connectTime is for dialling, TLS and the CONNACK together: a radio link may take half of it.
	connectTime = 30 * time.Second
	// pingTime is how long a ping may go unanswered. It waits behind up to maxFlight bytes of telemetry on a slow link; a dead path is noticed
	// sooner by the kernel.
	pingTime = 90 * time.Second
	// handOver is how long the client library may take to pass a packet on to the wire, which never waits. Longer means that the
	// connection has just ended.
	handOver = 2 * time.Second
	// libraryTime is how long the client library may take to end its goroutines when the connection is gone.
	libraryTime = 10 * time.Second
	// renewGrace is how long messages in flight may take to be acknowledged before a connection whose token expires is closed.
	renewGrace = 20 * time.Second
	// stopGrace is the same when the agent stops.
	stopGrace = 2 * time.Second
	// probeTime is how long the hub may take to answer when the network has come back under the connection.
	probeTime = 5 * time.Second
	// freshFlight is how old an unacknowledged message may be at that moment for the connection to be tried rather than given up.
	freshFlight = 2 * time.Second
	// inboxSize bounds deliveries that wait for the session. The hub sends one at a time and asks for an answer to most; more means
	// that it went mad.
	inboxSize = 256
)

// session is one connection. Its goroutine is the link's; the client library calls arrived and gone from its own.
type session struct {
	*link
	client paho.Client
	wire   *wire
	expiry time.Duration // until the token expires; 0 = it does not

	inbox   chan *incoming
	lost    chan error    // capacity 1: why the connection ended, when the library's goroutines are over
	replies chan reply    // of methods
	over    chan struct{} // closed when the session ends; methods then have nobody to answer

	pump       pump
	twin       twinState
	probe      alarm
	renew      alarm
	grace      alarm
	draining   error // why the session ends when nothing is in flight any more
	subscribed <-chan struct{}
	subToken   paho.Token
}

// incoming is one delivery of the hub, its topic parsed.
type incoming struct {
	iothub.Delivery
	body []byte
}

// noStore is the client library's store, which keeps nothing: the queue does.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
func (noStore) All() []string                     { return nil }
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Del(string)                        {}
func (noStore) Get(string) packets.ControlPacket  { return nil }

// connect makes one attempt. At most Config.Handshakes of them are under way.
func (l *link) connect(ctx context.Context) (*session, error) {
	select {
	case l.handshakes <- struct{}{}:
		defer func() { <-l.handshakes }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	secret, cert, err := l.cfg.Credential(l.id)
	if err != nil {
		return nil, fmt.Errorf("make credential: %w", err)
	}
	s := &session{
		link: l, inbox: make(chan *incoming, inboxSize), lost: make(chan error, 1),
		replies: make(chan reply), over: make(chan struct{}),
	}
	if secret != "" {
		token, err := iothub.ParseToken(secret)
		if err != nil {
			return nil, fmt.Errorf("make credential: %w", err)
		}
		s.expiry = max(token.Expiry().Sub(l.cfg.Now()), connectTime)
	}
	if err := s.greet(ctx, secret, cert); err != nil {
		return nil, err
	}
	return s, nil
}

// greet dials and waits for the CONNACK.
func (s *session) greet(ctx context.Context, secret iothub.Secret, cert *tls.Certificate) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	var dialErr error
	stop := func() bool { return true }
	options := s.options(secret)
	options.SetDefaultPublishHandler(s.arrived)
	options.SetConnectionLostHandler(func(_ paho.Client, err error) { s.lost <- err })
	options.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		conn, err := s.open(ctx, cert)
		if err != nil {
			dialErr = err
			return nil, err
		}
		s.wire = newWire(conn)
		stop = context.AfterFunc(ctx, func() { _ = s.wire.Close() })
		return s.wire, nil
	})
	s.client = paho.NewClient(options)
	connecting, ok := s.client.Connect().(*paho.ConnectToken)
	if !ok {
		return errors.New("client library gives another token than it says")
	}
	<-connecting.Done() // ctx ends it: the connection is closed then
	stop()
	err := connecting.Error()
	if err == nil {
		return nil
	}
	if s.wire != nil {
		<-s.wire.ended // the library has closed it
	}
	code := connecting.ReturnCode()
	switch {
	case dialErr != nil:
		return fmt.Errorf("connect to %s: %w", s.cfg.Address, dialErr)
	case code > 0 && code < packets.ErrNetworkError:
		return &RefusedError{Code: code}
	case ctx.Err() != nil:
		return fmt.Errorf("connect to %s: no CONNACK: %w", s.cfg.Address, ctx.Err())
	}
	return fmt.Errorf("connect to %s: %w", s.cfg.Address, err)
}

// options are the client library's.
func (l *link) options(secret iothub.Secret) *paho.ClientOptions {
	user := iothub.UserName{Hub: l.cfg.Hub, ID: l.id, APIVersion: iothub.APIVersion, ClientType: l.cfg.ClientType}
	o := paho.NewClientOptions()
	o.AddBroker("tcp://hub") // not looked at: greet dials
	o.SetClientID(l.id.String())
	o.SetUsername(user.String())
	o.SetPassword(secret.Reveal())
	o.SetProtocolVersion(4)
	o.SetCleanSession(false) // as the SDKs do; the hub then keeps cloud-to-device messages
	o.SetAutoReconnect(false)
	o.SetStore(noStore{})
	o.SetOrderMatters(true)
	o.SetKeepAlive(l.cfg.KeepAlive)
	o.SetPingTimeout(pingTime)
	o.SetConnectTimeout(connectTime)
	o.SetWriteTimeout(handOver)
	return o
}

// arrived takes a delivery from the client library. It must not wait.
func (s *session) arrived(_ paho.Client, m paho.Message) {
	d, err := iothub.ParseDelivery(m.Topic())
	if err != nil {
		s.log.Debug("delivery on a topic that is not known", "err", err)
		return
	}
	select {
	case s.inbox <- &incoming{d, m.Payload()}:
	default:
		s.log.Warn("the hub delivers faster than it can be served; connection is closed")
		_ = s.wire.Close()
	}
}

// run serves the connection until it is lost, or ends it for the reason it returns. All goroutines of the client library are over then.
func (s *session) run(ctx context.Context) error {
	defer close(s.over)
	methods, cancel := context.WithCancel(ctx)
	defer cancel()
	s.pump.begin(s)
	s.subscribe()
	if s.expiry > 0 {
		s.renew.set(s.expiry*17/20 + rand.N(s.expiry/20))
	}
	stopping := ctx.Done()
	for {
		if err := s.pump.fill(); err != nil {
			return s.end(err)
		}
		if s.draining != nil && s.pump.empty() {
			return s.end(s.draining)
		}
		select {
		case err := <-s.lost:
			return fmt.Errorf("connection lost: %w", err)
		case <-s.pump.acked():
			if err := s.pump.collect(); err != nil {
				return s.end(err)
			}
			s.probe.stop()
		case <-s.pump.ready:
			s.pump.more = true
		case <-s.pump.hold.c():
			s.pump.more = true
		case <-s.pump.stall.c():
			if !s.pump.moving() {
				return s.end(errStalled)
			}
		case <-s.subscribed:
			if err := s.granted(); err != nil {
				return s.end(err)
			}
		case d := <-s.inbox:
			s.probe.stop()
			if ctx.Err() == nil {
				s.handle(ctx, methods, d)
			}
		case <-s.reported:
			s.twin.wantPatch = true
			s.stepTwin()
		case <-s.twin.alarm.c():
			if err := s.twinAlarm(); err != nil {
				return s.end(err)
			}
		case r := <-s.replies:
			s.answer(r)
		case <-s.networkUp:
			if s.pump.age() > freshFlight {
				return s.end(errStale)
			}
			s.probeNow()
		case <-s.probe.c():
			return s.end(errStale)
		case <-s.renew.c():
			s.drain(errRenew, renewGrace)
		case <-s.grace.c():
			return s.end(s.draining)
		case <-stopping:
			stopping = nil
			s.drain(context.Cause(ctx), stopGrace)
		}
	}
}

// drain lets what is in flight be acknowledged, sends nothing more, and then ends the session for the reason.
func (s *session) drain(why error, within time.Duration) {
	s.draining = why
	s.renew.stop()
	s.grace.set(within)
}

// end says DISCONNECT, closes the connection and waits until the client library is through. It returns why.
func (s *session) end(why error) error {
	_, _ = s.wire.Write([]byte{packets.Disconnect << 4, 0}) // if it cannot be said it is seen
	_ = s.wire.Close()
	timer := time.NewTimer(libraryTime)
	defer timer.Stop()
	select {
	case lost := <-s.lost:
		s.log.Debug("connection to the hub is closed", "err", lost)
	case <-timer.C:
		s.log.Error("client library does not end its connection")
	}
	<-s.wire.ended
	return why
}

// subscribe asks for everything that the hub sends unasked, in one packet.
func (s *session) subscribe() {
	filters := map[string]byte{}
	for _, f := range []iothub.Feature{iothub.FeatureMethods, iothub.FeatureTwinResults, iothub.FeatureDesired} {
		filters[iothub.Filter{Feature: f}.String()] = 0
	}
	s.subToken = s.client.SubscribeMultiple(filters, nil)
	s.subscribed = s.subToken.Done()
	s.twin.await(waitAnswer, answerTime)
}

// granted begins the twin's part, which needs the subscriptions.
func (s *session) granted() error {
	s.subscribed = nil
	if err := s.subToken.Error(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	s.twin.begin()
	s.stepTwin()
	return nil
}

// handle takes one delivery.
func (s *session) handle(ctx, methods context.Context, d *incoming) {
	switch d.Kind {
	case iothub.DesiredPatch:
		s.desiredPatch(ctx, d)
	case iothub.TwinResult:
		s.twinResult(ctx, d)
	case iothub.MethodCall:
		s.call(methods, d)
	case iothub.Input, iothub.CloudToDevice:
		s.log.Debug("delivery that nobody asked for", "topic", d.Topic())
	}
}

// publish hands a packet with QoS 0 to the client library.
func (s *session) publish(p iothub.Publish, body []byte) {
	s.client.Publish(p.Topic(), 0, false, body) // an error means that the connection is ending, which is seen elsewhere
}

// probeNow asks the hub for a sign of life. Until the subscriptions are granted their answer is one.
func (s *session) probeNow() {
	s.probe.set(probeTime)
	if s.subscribed == nil {
		s.twin.wantGet = true
		s.twin.hasten()
		s.stepTwin()
	}
}
