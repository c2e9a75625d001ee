package checkup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// patience is how long one step towards the hub may take.
const patience = 10 * time.Second

// link tries the way to the hub up to the end of the TLS handshake; beyond it the device would have to say who it is.
func (c Config) link(ctx context.Context, say func(Level, string, string)) {
	if c.Hub == "" {
		say(Well, "standalone: there is no hub", "")
		return
	}
	for _, way := range []struct{ what, address, port string }{{"messages", c.MQTT, "8883"}, {"images and methods", c.HTTPS, "443"}} {
		address := way.address
		if address == "" {
			address = net.JoinHostPort(c.Hub, way.port)
		}
		cert, err := c.greet(ctx, address)
		if err != nil {
			what, do := diagnose(err)
			say(Bad, fmt.Sprintf("%s (%s): %s", address, way.what, what), do)
			continue
		}
		c.expiry(say, address+" ("+way.what+"): reached; its certificate", cert, "ask the hub's operator")
	}
}

// greet makes one TLS handshake and returns the certificate of the other end.
func (c Config) greet(ctx context.Context, address string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{ServerName: c.Hub, RootCAs: c.Roots, Time: c.Now, MinVersion: tls.VersionTLS12}}
	if c.Certificate != nil {
		d.Config.Certificates = []tls.Certificate{*c.Certificate}
	}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	state := conn.(*tls.Conn).ConnectionState()
	return state.PeerCertificates[0], conn.Close()
}

// diagnose turns an error on the way to the hub into what it means and what to do.
func diagnose(err error) (what, do string) {
	what = strings.Join(strings.Fields(err.Error()), " ")
	var name *net.DNSError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var other x509.HostnameError
	switch {
	case errors.As(err, &name):
		return what, "check the servers in /etc/resolv.conf, and that the network is up"
	case errors.As(err, &unknown):
		return what, "set upstream.trusted_ca to the CA of your hub, or update the system's roots; a proxy that opens TLS looks like this too"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return what, "check the clock of this device; if it is right, the certificate has expired"
	case errors.As(err, &other):
		return what, "somebody else answers under this address: check upstream.mqtt_address and https_address, and the name's resolution"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s", patience), "a firewall drops it, or the route is wrong: let outgoing TCP to this port pass"
	}
	return what, "check the network's route and firewall for outgoing TCP to this port"
}

// cutRemedy splits "what: consequence; remedy" as the kernel's probes write it.
func cutRemedy(line string) (what, do string) {
	if i := strings.LastIndex(line, "; "); i >= 0 {
		return line[:i], line[i+2:]
	}
	return line, ""
}
