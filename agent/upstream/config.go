package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/store"
)

// MaxKeepAlive is the longest keep-alive that the service honours: it drops a silent client after one and a half times as long,
// but never later than 1767 s.
const MaxKeepAlive = 1177 * time.Second

// Config of an Upstream. Hub, Credential, Queue and Twins are needed.
type Config struct {
	Hub     string      // host name of the hub: in user names, as server name, verified in its certificate
	Address string      // host:port to dial; default {Hub}:8883
	TLS     *tls.Config // trust for the hub; nil = the system's roots. The server name and the client certificate are set here

	Dial       func(ctx context.Context, network, address string) (net.Conn, error) // default: TCP that notices a dead path within 30 s
	Credential func(id iothub.ID) (iothub.Secret, *tls.Certificate, error)          // called for each attempt
	Refused    func(ctx context.Context, id iothub.ID) error                        // told when the hub refuses id; nil error = it may go better now. Optional
	Method     func(ctx context.Context, id iothub.ID, req iothub.MethodRequest) iothub.MethodResult

	Queue *store.Queue
	Twins *twin.Keeper

	LinkUp <-chan struct{} // receives when the network may have come back; see [WatchLinks] and [Upstream.NetworkUp]. Optional

	Window     int           // messages in flight per identity; default 64
	KeepAlive  time.Duration // default 60 s, at most [MaxKeepAlive]
	Handshakes int           // connections being made at a time; default 4
	ClientType string        // what the hub shows of the client; default "sandpiper"

	Now func() time.Time // time as the hub has it; default time.Now
	// Made finds the time of a message that was taken before the device knew it: at uptime of a boot. within is how much too late the
	// answer may be. False: it cannot be said. Default: it never can.
	Made   func(boot string, uptime time.Duration) (at time.Time, within time.Duration, ok bool)
	Logger *slog.Logger // default: discard
}

func (c Config) withDefaults() (Config, error) {
	if c.Hub == "" || c.Credential == nil || c.Queue == nil || c.Twins == nil {
		return c, errors.New("upstream: Hub, Credential, Queue and Twins are needed")
	}
	if c.KeepAlive > MaxKeepAlive {
		return c, errors.New("upstream: keep-alive " + c.KeepAlive.String() + " is longer than the " + MaxKeepAlive.String() + " that the hub honours")
	}
	if c.Address == "" {
		c.Address = net.JoinHostPort(c.Hub, strconv.Itoa(iothub.PortMQTT))
	}
	if c.Dial == nil {
		c.Dial = dialTCP
	}
	if c.Method == nil {
		c.Method = func(context.Context, iothub.ID, iothub.MethodRequest) iothub.MethodResult {
			return iothub.MethodResult{Status: 404}
		}
	}
	if c.Window <= 0 {
		c.Window = 64
	}
	if c.KeepAlive <= 0 {
		c.KeepAlive = time.Minute
	}
	if c.Handshakes <= 0 {
		c.Handshakes = 4
	}
	if c.ClientType == "" {
		c.ClientType = "sandpiper"
	}
	if c.Made == nil {
		c.Made = func(string, time.Duration) (time.Time, time.Duration, bool) { return time.Time{}, 0, false }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
