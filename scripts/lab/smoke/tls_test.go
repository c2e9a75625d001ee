package smoke

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
)

// A program that needs a key waits for the kernel's pool. One that only the jitter of a coarse timer fills is filled in seconds, or never.
func TestTheKernelsRandomPoolIsFilledBeforeProgramsStart(t *testing.T) {
	t.Parallel()
	onBoard(t)
	if _, err := unix.Getrandom(make([]byte, 32), unix.GRND_NONBLOCK); err != nil {
		t.Errorf("getrandom without waiting: %v, want 32 bytes: no hardware generator fills the pool", err)
	}
}

func TestClockAndEntropyAreGoodEnoughForTLS(t *testing.T) {
	t.Parallel()
	onBoard(t)
	cert, pool := certtest.Between(t, "hub.lab", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = conn.(*tls.Conn).HandshakeContext(t.Context())
			conn.Close()
		}
		served <- err
	}()
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 30 * time.Second}, Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: "hub.lab"}}
	conn, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}
