package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deadPath is how long sent data may remain unacknowledged by the hub's kernel before ours gives the connection up, and how
// long a path that carries nothing is trusted before it is probed. It holds at any speed, because it looks at
// acknowledgements and not at messages.
const deadPath = 30 * time.Second

// dialTCP is the default of Config.Dial.
func dialTCP(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadPath, Interval: deadPath / 3, Count: 3},
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if outer := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadPath/time.Millisecond))
			}); outer != nil {
				return outer
			}
			return err
		},
	}
	return dialer.DialContext(ctx, network, address)
}

// open makes the connection below a session: dialled, and the hub's certificate verified.
func (l *link) open(ctx context.Context, cert *tls.Certificate) (net.Conn, error) {
	raw, err := l.cfg.Dial(ctx, "tcp", l.cfg.Address)
	if err != nil {
		return nil, err
	}
	conf := l.cfg.TLS.Clone()
	if conf == nil {
		conf = &tls.Config{}
	}
	conf.ServerName = l.cfg.Hub
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS12)
	conf.ClientSessionCache = l.tickets // one per identity: a session belongs to the client certificate it was made with
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error says more
		return nil, err
	}
	return conn, nil
}
