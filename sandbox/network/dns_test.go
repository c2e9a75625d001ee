package network

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"testing"
	"time"
)

// question is a DNS message as far as the resolver looks: twelve bytes of header, and a body.
func question(id byte, body string) []byte {
	return append([]byte{0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, body...)
}

// echoServer answers each question with itself and a mark.
func echoServer(t *testing.T) netip.AddrPort {
	t.Helper()
	streams, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = streams.Close() })
	datagrams, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", streams.Addr().String())
	if err != nil {
		t.Skipf("THE RESOLVER IS NOT TESTED: no port for both protocols: %v", err)
	}
	t.Cleanup(func() { _ = datagrams.Close() })
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := datagrams.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = datagrams.WriteTo([]byte("xx of somebody else"), from) // a stranger's guess
			_, _ = datagrams.WriteTo(append(buf[:n:n], " udp"...), from)
		}
	}()
	go func() {
		for {
			c, err := streams.Accept()
			if err != nil {
				return
			}
			if q, err := readStream(c); err == nil {
				_ = writeStream(c, append(q, " tcp"...))
			}
			_ = c.Close()
		}
	}()
	return netip.MustParseAddrPort(streams.Addr().String())
}

func TestNamesAreAskedOfTheHostsServers(t *testing.T) {
	t.Parallel()
	good := echoServer(t)
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := netip.MustParseAddrPort(closed.Addr().String())
	_ = closed.Close()
	for name, c := range map[string]struct {
		servers  []netip.AddrPort
		udp, tcp []byte
	}{
		"the first answers":             {[]netip.AddrPort{good, nobody}, question(7, "name udp"), question(7, "name tcp")},
		"the first is gone, the second": {[]netip.AddrPort{nobody, good}, question(7, "name udp"), question(7, "name tcp")},
		"nobody answers":                {[]netip.AddrPort{nobody}, unavailable(question(7, "name")), unavailable(question(7, "name"))},
		"the host has none":             {nil, unavailable(question(7, "name")), unavailable(question(7, "name"))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streams, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			datagrams, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				done <- Resolver{Servers: func() []netip.AddrPort { return c.servers }}.Serve(ctx, datagrams, streams)
			}()
			if got := exchange(t, "udp", datagrams.LocalAddr().String()); !bytes.Equal(got, c.udp) {
				t.Errorf("udp: got %q, want %q", got, c.udp)
			}
			if got := exchange(t, "tcp", streams.Addr().String()); !bytes.Equal(got, c.tcp) {
				t.Errorf("tcp: got %q, want %q", got, c.tcp)
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("end: %v", err)
			}
		})
	}
}

// exchange asks as a module does.
func exchange(t *testing.T, network, addr string) []byte {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if network == "tcp" {
		if err := writeStream(c, question(7, "name")); err != nil {
			t.Fatal(err)
		}
		answer, err := readStream(c)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if _, err := c.Write([]byte("short")); err != nil { // no question at all: passed over
		t.Fatal(err)
	}
	if _, err := c.Write(question(7, "name")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxDatagram)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// What a module or a server says over TCP is as long as its two bytes say, within the bound, and an answer can be made of every question.
func FuzzStream(f *testing.F) {
	f.Add([]byte("\x00\x0c123456789012"))
	f.Add([]byte("\x00\x0b12345678901"))
	f.Add([]byte("\xff\xff12"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		message, err := readStream(bytes.NewReader(raw))
		if err != nil {
			return
		}
		if len(message) < smallestMessage || len(message) > maxStream || !bytes.Equal(message, raw[2:2+len(message)]) {
			t.Fatalf("got %d bytes of %d", len(message), len(raw))
		}
		var again bytes.Buffer
		if err := writeStream(&again, message); err != nil || !bytes.Equal(again.Bytes(), raw[:again.Len()]) {
			t.Errorf("got %x, %v, want %x", again.Bytes(), err, raw)
		}
		if answer := unavailable(message); answer[2]&0x80 == 0 || answer[3]&0x0f != 2 || !bytes.Equal(answer[:2], message[:2]) {
			t.Errorf("got %x for %x", answer[:4], message[:4])
		}
	})
}
