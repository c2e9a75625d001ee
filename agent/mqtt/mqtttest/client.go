package mqtttest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Options of a CONNECT.
type Options struct {
	ClientID    string
	UserName    string
	Password    string
	Clean       bool
	KeepAlive   uint16 // seconds; 0 = none
	WillTopic   string // "" = no will
	WillPayload []byte
}

// Message is one PUBLISH from the server.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	ID      uint16 // packet identifier, 0 with QoS 0
	Dup     bool
	Retain  bool
}

// RefusedError is a CONNACK with another code than 0.
type RefusedError struct{ Code byte }

// Error implements error.
func (e *RefusedError) Error() string { return fmt.Sprintf("connection refused with code %d", e.Code) }

// Client is one connection. Its methods may be called from several goroutines.
type Client struct {
	Present  bool         // session-present of the CONNACK
	Messages chan Message // what the server published; closed when the connection has ended

	nc    net.Conn
	r     *bufio.Reader
	ended chan struct{}

	mu      sync.Mutex
	lastID  uint16
	answers map[uint16]chan []byte // SUBACK, UNSUBACK (empty) and PUBACK (empty), by identifier
	pings   chan struct{}
	err     error
}

// Dial opens a connection with dial and sends the CONNECT.
func Dial(ctx context.Context, dial func(context.Context) (net.Conn, error), o Options) (*Client, error) {
	nc, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	c, err := Connect(nc, o)
	if err != nil {
		_ = nc.Close()
	}
	return c, err
}

// Connect sends the CONNECT on nc and waits for the answer; *RefusedError when it is a refusal.
func Connect(nc net.Conn, o Options) (*Client, error) {
	c := &Client{
		Messages: make(chan Message, 1024),
		nc:       nc, r: bufio.NewReaderSize(nc, 16<<10), ended: make(chan struct{}),
		answers: map[uint16]chan []byte{}, pings: make(chan struct{}, 16),
	}
	var err error
	if c.Present, err = greet(nc, c.r, o); err != nil {
		return nil, err
	}
	go c.read()
	return c, nil
}

// greet sends the CONNECT and reads the CONNACK.
func greet(w io.Writer, r *bufio.Reader, o Options) (present bool, err error) {
	pk := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connect},
		ProtocolVersion: 4,
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), ClientIdentifier: o.ClientID, Clean: o.Clean, Keepalive: o.KeepAlive,
			UsernameFlag: o.UserName != "", Username: []byte(o.UserName), PasswordFlag: o.Password != "", Password: []byte(o.Password),
			WillFlag: o.WillTopic != "", WillTopic: o.WillTopic, WillPayload: o.WillPayload,
		},
	}
	var b bytes.Buffer
	if err := pk.ConnectEncode(&b); err != nil {
		return false, err
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return false, err
	}
	in, err := ReadPacket(r)
	if err != nil {
		return false, err
	}
	if in.FixedHeader.Type != packets.Connack {
		return false, fmt.Errorf("packet type %d instead of CONNACK", in.FixedHeader.Type)
	}
	if in.ReasonCode != 0 {
		return false, &RefusedError{Code: in.ReasonCode}
	}
	return in.SessionPresent, nil
}

// Subscribe sends one SUBSCRIBE with all filters at QoS 1 and returns the codes granted.
func (c *Client) Subscribe(ctx context.Context, filters ...string) ([]byte, error) {
	return c.SubscribeQoS(ctx, 1, filters...)
}

// SubscribeQoS is Subscribe at another QoS.
func (c *Client) SubscribeQoS(ctx context.Context, qos byte, filters ...string) ([]byte, error) {
	id, answer := c.expect()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: 4, PacketID: id}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f, Qos: qos})
	}
	return c.ask(ctx, &pk, (*packets.Packet).SubscribeEncode, answer)
}

// Unsubscribe sends one UNSUBSCRIBE and waits for the answer.
func (c *Client) Unsubscribe(ctx context.Context, filters ...string) error {
	id, answer := c.expect()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, ProtocolVersion: 4, PacketID: id}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f})
	}
	_, err := c.ask(ctx, &pk, (*packets.Packet).UnsubscribeEncode, answer)
	return err
}

// Publish sends a PUBLISH and, with QoS 1, waits for its PUBACK.
func (c *Client) Publish(ctx context.Context, topic string, payload []byte, qos byte) error {
	if qos == 0 {
		return c.Send(topic, payload, 0, 0)
	}
	id, answer := c.expect()
	pk := publish(topic, payload, qos, id)
	_, err := c.ask(ctx, &pk, (*packets.Packet).PublishEncode, answer)
	return err
}

// Start sends a QoS 1 PUBLISH; the channel receives on its PUBACK and is closed when the connection ends first.
func (c *Client) Start(topic string, payload []byte) (acked <-chan []byte, err error) {
	id, answer := c.expect()
	return answer, c.Send(topic, payload, 1, id)
}

// Send writes a PUBLISH as it is told to and expects nothing.
func (c *Client) Send(topic string, payload []byte, qos byte, id uint16) error {
	pk := publish(topic, payload, qos, id)
	return c.write(&pk, (*packets.Packet).PublishEncode)
}

// Ack acknowledges a message.
func (c *Client) Ack(m Message) error {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, ProtocolVersion: 4, PacketID: m.ID}
	return c.write(&pk, (*packets.Packet).PubackEncode)
}

// Next waits for the next message and acknowledges it if it wants that.
func (c *Client) Next(ctx context.Context) (Message, error) {
	select {
	case m, ok := <-c.Messages:
		if !ok {
			return m, c.Err()
		}
		if m.QoS > 0 {
			return m, c.Ack(m)
		}
		return m, nil
	case <-ctx.Done():
		return Message{}, fmt.Errorf("wait for a message: %w", ctx.Err())
	}
}

// Ping sends a PINGREQ and waits for the answer.
func (c *Client) Ping(ctx context.Context) error {
	if err := c.Write([]byte{packets.Pingreq << 4, 0}); err != nil {
		return err
	}
	select {
	case <-c.pings:
		return nil
	case <-c.ended:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Write sends raw bytes.
func (c *Client) Write(b []byte) error {
	_, err := c.nc.Write(b)
	return err
}

// Ended is closed when the connection has ended from either side; Err says why.
func (c *Client) Ended() <-chan struct{} { return c.ended }

// Err is why the connection ended; io.EOF when the server closed it.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close says DISCONNECT, closes the connection and waits for the reading goroutine. Messages that nobody took are dropped.
func (c *Client) Close() error {
	_ = c.Write([]byte{packets.Disconnect << 4, 0})
	return c.Abort()
}

// Abort closes the connection without a word.
func (c *Client) Abort() error {
	err := c.nc.Close()
	for range c.Messages { // ends when the reading goroutine closes it
	}
	<-c.ended
	return err
}

func publish(topic string, payload []byte, qos byte, id uint16) packets.Packet {
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, ProtocolVersion: 4, PacketID: id, TopicName: topic, Payload: payload,
	}
}

// expect reserves a packet identifier and the place for its answer.
func (c *Client) expect() (uint16, chan []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.lastID++
		if _, used := c.answers[c.lastID]; c.lastID != 0 && !used {
			break
		}
	}
	answer := make(chan []byte, 1)
	if c.err != nil {
		close(answer)
		return c.lastID, answer
	}
	c.answers[c.lastID] = answer
	return c.lastID, answer
}

func (c *Client) ask(ctx context.Context, pk *packets.Packet, encode func(*packets.Packet, *bytes.Buffer) error, answer chan []byte) ([]byte, error) {
	if err := c.write(pk, encode); err != nil {
		return nil, err
	}
	select {
	case got, ok := <-answer:
		if !ok {
			return nil, fmt.Errorf("no answer: %w", c.Err())
		}
		return got, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer: %w", ctx.Err())
	}
}

func (c *Client) write(pk *packets.Packet, encode func(*packets.Packet, *bytes.Buffer) error) error {
	var b bytes.Buffer
	if err := encode(pk, &b); err != nil {
		return err
	}
	return c.Write(b.Bytes())
}

func (c *Client) read() {
	defer close(c.ended)
	defer close(c.Messages)
	err := c.receive()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, answer := range c.answers {
		close(answer)
	}
	clear(c.answers)
}

func (c *Client) receive() error {
	for {
		pk, err := ReadPacket(c.r)
		if err != nil {
			return err
		}
		switch pk.FixedHeader.Type {
		case packets.Publish:
			c.Messages <- Message{
				Topic: pk.TopicName, Payload: pk.Payload, QoS: pk.FixedHeader.Qos, ID: pk.PacketID, Dup: pk.FixedHeader.Dup, Retain: pk.FixedHeader.Retain,
			}
		case packets.Puback, packets.Suback, packets.Unsuback:
			c.mu.Lock()
			answer := c.answers[pk.PacketID]
			delete(c.answers, pk.PacketID)
			c.mu.Unlock()
			if answer != nil {
				answer <- pk.ReasonCodes
			}
		case packets.Pingresp:
			c.pings <- struct{}{}
		default:
			return fmt.Errorf("unexpected packet type %d from the server", pk.FixedHeader.Type)
		}
	}
}

// ReadPacket reads and decodes one packet of those a server sends.
func ReadPacket(r *bufio.Reader) (packets.Packet, error) {
	pk := packets.Packet{ProtocolVersion: 4}
	head, err := r.ReadByte()
	if err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(head); err != nil {
		return pk, err
	}
	size, _, err := packets.DecodeLength(r)
	if err != nil {
		return pk, err
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return pk, err
	}
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Suback:
		err = pk.SubackDecode(body)
	case packets.Unsuback:
		err = pk.UnsubackDecode(body)
	case packets.Pingresp:
		err = pk.PingrespDecode(body)
	default:
		err = errors.New("not a packet of a server")
	}
	return pk, err
}
