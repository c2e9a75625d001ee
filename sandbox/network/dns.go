package network

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// Resolver answers the names that a member asks for, by asking those whom the host asks. What the host's resolv.conf says is looked up for each
// question: a host that moves to another network takes its modules along. Questions and answers pass as they are.
type Resolver struct {
	Servers func() []netip.AddrPort // default: those of /etc/resolv.conf
	Logger  *slog.Logger            // default: discard
}

// Bounds of one member's questions.
const (
	maxQuestions    = 32       // at a time; more wait, and are lost as datagrams are
	maxDatagram     = 4096     // bytes: what EDNS allows for in practice
	maxStream       = 64 << 10 // bytes of an answer over TCP
	serverPatience  = 2 * time.Second
	clientPatience  = 10 * time.Second
	resolvConf      = "/etc/resolv.conf"
	maxServers      = 3 // as resolv.conf(5) has it
	domainPort      = 53
	smallestMessage = 12 // bytes: a header
)

// Serve answers on both until ctx ends, and closes them.
func (r Resolver) Serve(ctx context.Context, datagrams net.PacketConn, streams net.Listener) error {
	if r.Servers == nil {
		r.Servers = hostServers
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = datagrams.Close() // which is how the loops end
		_ = streams.Close()
	})
	defer stop()
	slots := make(chan struct{}, maxQuestions)
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		defer cancel()
		r.serveStreams(ctx, streams, slots, &all)
	})
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := datagrams.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if n < smallestMessage {
			continue
		}
		question := append([]byte(nil), buf[:n]...)
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		all.Go(func() {
			defer func() { <-slots }()
			answer, err := r.ask(ctx, "udp", question)
			if err != nil {
				r.Logger.Debug("name not resolved", "err", err)
				answer = unavailable(question)
			}
			_, _ = datagrams.WriteTo(answer, from) // as datagrams are
		})
	}
}

func (r Resolver) serveStreams(ctx context.Context, streams net.Listener, slots chan struct{}, all *sync.WaitGroup) {
	for {
		conn, err := streams.Accept()
		if err != nil {
			return // closed
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			_ = conn.Close()
			return
		}
		all.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			if conn.SetDeadline(time.Now().Add(clientPatience)) != nil {
				return
			}
			question, err := readStream(conn)
			if err != nil {
				return
			}
			answer, err := r.ask(ctx, "tcp", question)
			if err != nil {
				answer = unavailable(question)
			}
			_ = writeStream(conn, answer) // it may have gone
		})
	}
}

// ask asks one server after the other.
func (r Resolver) ask(ctx context.Context, network string, question []byte) ([]byte, error) {
	err := errors.New("the host has no resolver")
	for _, server := range r.Servers() {
		var answer []byte
		if answer, err = askOne(ctx, network, server, question); err == nil {
			return answer, nil
		}
	}
	return nil, err
}

func askOne(ctx context.Context, network string, server netip.AddrPort, question []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, serverPatience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if network == "tcp" {
		if err := writeStream(conn, question); err != nil {
			return nil, err
		}
		return readStream(conn)
	}
	if _, err := conn.Write(question); err != nil {
		return nil, err
	}
	answer := make([]byte, maxDatagram)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return nil, err
		}
		if n >= smallestMessage && answer[0] == question[0] && answer[1] == question[1] { // of this question
			return answer[:n], nil
		}
	}
}

func readStream(conn io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n < smallestMessage || n > maxStream {
		return nil, errors.New("no message")
	}
	message := make([]byte, n)
	_, err := io.ReadFull(conn, message)
	return message, err
}

func writeStream(conn io.Writer, message []byte) error {
	_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}

// unavailable is an answer that says SERVFAIL, so that nobody waits.
func unavailable(question []byte) []byte {
	answer := append([]byte(nil), question...)
	answer[2] |= 0x80              // an answer
	answer[3] = answer[3]&0xf0 | 2 // that failed
	return answer
}

// hostServers reads the host's resolv.conf.
func hostServers() []netip.AddrPort {
	raw, err := os.ReadFile(resolvConf)
	if err != nil {
		return nil
	}
	return parseServers(string(raw))
}

// parseServers finds the servers of a resolv.conf.
func parseServers(conf string) (list []netip.AddrPort) {
	for line := range strings.Lines(conf) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(list) == maxServers {
			continue
		}
		if addr, err := netip.ParseAddr(f[1]); err == nil {
			list = append(list, netip.AddrPortFrom(addr, domainPort))
		}
	}
	return list
}
