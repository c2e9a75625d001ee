package mqtt

// Publish is one message from a client. It belongs to the session that got it.
type Publish struct {
	Topic   string
	Payload []byte
	QoS     byte // 0 or 1
	Retain  bool
	Dup     bool

	conn  *Conn // nil with QoS 0
	id    uint16
	size  int      // what it counts for in the window, bytes
	acked bool     // under conn.mu
	next  *Publish // under conn.mu: the publish that came after this one
}

// Ack says that the message is safe. The PUBACK leaves as soon as those of all earlier publishes of the connection may; all that may
// leave together go in one write. Any goroutine may call it, and a second call, a call with QoS 0 or after the end of the
// connection does nothing. It takes a lock and never waits for the network.
func (p *Publish) Ack() {
	c := p.conn
	if c == nil {
		return
	}
	c.mu.Lock()
	p.acked = true
	for q := c.first; q != nil && q.acked; q = c.first {
		c.out = appendPuback(c.out, q.id)
		c.unacked--
		c.unackedBytes -= q.size
		c.first, q.next = q.next, nil
	}
	if c.first == nil {
		c.last = nil
	}
	c.signalLocked()
	c.mu.Unlock()
}

// admit waits until the window has room for p and puts it at the end of the list. False: the connection has ended.
func (c *Conn) admit(p *Publish) bool {
	p.conn, p.size = c, len(p.Payload)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.waitLocked(func() bool {
		return c.unacked == 0 || c.unacked < c.srv.cfg.Window && c.unackedBytes+p.size <= c.srv.cfg.WindowBytes
	}) {
		return false
	}
	c.unacked++
	c.unackedBytes += p.size
	if c.last == nil {
		c.first, c.last = p, p
		return true
	}
	c.last.next, c.last = p, p
	return true
}
