package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Code is the return code of a CONNACK (MQTT 3.1.1 table 3.1).
type Code byte

// What a CONNACK can say. The device SDKs retry only after Unavailable: every other refusal ends their client for good.
const (
	Accepted       Code = 0
	BadProtocol    Code = 1 // not MQTT 3.1.1
	BadIdentifier  Code = 2 // the client id is not acceptable
	Unavailable    Code = 3 // not ready yet; the client comes back
	BadCredentials Code = 4 // user name or password malformed
	NotAuthorized  Code = 5 // definitively not this identity
)

// String names the code for the log.
func (c Code) String() string {
	switch c {
	case Accepted:
		return "accepted"
	case BadProtocol:
		return "bad protocol"
	case BadIdentifier:
		return "bad identifier"
	case Unavailable:
		return "unavailable"
	case BadCredentials:
		return "bad credentials"
	case NotAuthorized:
		return "not authorized"
	}
	return fmt.Sprintf("code %d", byte(c))
}

// Origin says where a connection came in, which is known before its first byte.
type Origin struct {
	ID    iothub.ID // the only identity that may speak here; zero = anybody
	Label string    // for the log: "netns filter", "0.0.0.0:8883"
}

// Will is what the client asks to be published for it when its connection breaks.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
}

// Hello is a CONNECT: who claims to be there, and by which door.
type Hello struct {
	ClientID  string
	UserName  string        // as sent; iothub.ParseUserName reads it
	Password  iothub.Secret // empty = none sent
	Clean     bool
	KeepAlive time.Duration // as asked; 0 = none
	Will      *Will         // nil = none
	Origin    Origin
	TLS       *tls.ConnectionState // nil on a plain connection
	Remote    net.Addr
}

// Handler judges a CONNECT. It may take its time (until ctx ends, which is the CONNECT time-out): only this client waits.
// A Session that comes with Accepted will see Closed exactly once, whatever happens; with any other code it is ignored.
type Handler interface {
	Connect(ctx context.Context, h Hello) (Session, Code)
}

// Session is one connection's handler. All methods are called from one goroutine, in the order of the client's packets;
// a method that blocks stops the reading of this connection and of no other.
type Session interface {
	// Opened is called after the CONNACK is on its way and before the first packet is read. Not called when the connection
	// broke first. When another connection had the same client id, its session has seen Closed before this.
	Opened(c *Conn)
	// Subscribe answers with one code for each filter: the granted QoS, or 0x80. See Conn.AfterReply for what must follow the SUBACK.
	Subscribe(filters []Subscription) []byte
	// Unsubscribe is answered when it returns.
	Unsubscribe(filters []string)
	// Publish hands the message over for good: payload and topic are the session's from here on.
	Publish(p *Publish)
	// Closed is the last call. nil: the client said DISCONNECT. Otherwise why the connection ended.
	Closed(err error)
}

// Resumer is a Session that knows whether it goes on with a stored one: CONNACK's session-present flag.
type Resumer interface {
	Resumed() bool
}

// Subscription is one filter of a SUBSCRIBE.
type Subscription struct {
	Filter string
	QoS    byte // 0, 1 or 2 as asked
}

func resumed(s Session) bool {
	r, ok := s.(Resumer)
	return ok && r.Resumed()
}

// protocolName and its level are looked at before anything else: what follows differs in other versions.
const protocolName = "\x00\x04MQTT\x04"

var errProtocol = errors.New("not MQTT 3.1.1")

// Connect flags (MQTT 3.1.1 section 3.1.2.3).
const (
	flagReserved   = 1 << 0
	flagClean      = 1 << 1
	flagWill       = 1 << 2
	flagWillQoS    = 3 << 3
	flagWillRetain = 1 << 5
	flagPassword   = 1 << 6
	flagUserName   = 1 << 7
)

// parseConnect reads the body of a CONNECT. errProtocol asks for a CONNACK with BadProtocol; any other error for none.
func parseConnect(body []byte) (Hello, error) {
	if len(body) < len(protocolName) || string(body[:len(protocolName)]) != protocolName {
		return Hello{}, errProtocol
	}
	f := fields{rest: body[len(protocolName):]}
	flags := f.byte()
	willQoS := flags & flagWillQoS >> 3
	switch {
	case flags&flagReserved != 0:
		return Hello{}, errors.New("parse CONNECT: reserved flag set")
	case flags&flagPassword != 0 && flags&flagUserName == 0:
		return Hello{}, errors.New("parse CONNECT: password without user name")
	case flags&flagWill == 0 && flags&(flagWillQoS|flagWillRetain) != 0, willQoS > 2:
		return Hello{}, errors.New("parse CONNECT: will flags contradict each other")
	}
	h := Hello{Clean: flags&flagClean != 0, KeepAlive: time.Duration(f.uint16()) * time.Second, ClientID: f.text()}
	if flags&flagWill != 0 {
		h.Will = &Will{Topic: f.text(), Payload: bytes.Clone(f.binary()), QoS: willQoS, Retain: flags&flagWillRetain != 0}
	}
	if flags&flagUserName != 0 {
		h.UserName = f.text()
	}
	if flags&flagPassword != 0 {
		h.Password = iothub.Secret(f.binary())
	}
	if err := f.end(); err != nil {
		return Hello{}, fmt.Errorf("parse CONNECT: %w", err)
	}
	return h, nil
}
