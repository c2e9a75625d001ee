package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/store"
)

// counter is a hub that acknowledges at once and counts.
type counter struct{ got chan struct{} }

func (c counter) Connect(context.Context, mqtt.Hello) (mqtt.Session, mqtt.Code) {
	return c, mqtt.Accepted
}
func (c counter) Opened(*mqtt.Conn)                      {}
func (c counter) Subscribe(f []mqtt.Subscription) []byte { return make([]byte, len(f)) }
func (c counter) Unsubscribe([]string)                   {}
func (c counter) Closed(error)                           {}
func (c counter) Publish(p *mqtt.Publish) {
	if p.QoS == 1 {
		p.Ack()
		c.got <- struct{}{}
	}
}

// onLoopback runs an Upstream against a counting hub over TCP and TLS.
func onLoopback(b *testing.B, ids []iothub.ID) (*store.Queue, chan struct{}, *Upstream) {
	b.Helper()
	cert, roots := certtest.New(b, hubName)
	hub := counter{make(chan struct{}, 1024)}
	server, err := mqtt.New(mqtt.Config{Handler: hub, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	st, err := store.Open(store.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	twins, err := twin.NewKeeper(st.Docs())
	if err != nil {
		b.Fatal(err)
	}
	u, err := New(Config{
		Hub: hubName, Address: l.Addr().String(), TLS: &tls.Config{RootCAs: roots}, Queue: st.Queue(), Twins: twins,
		Credential: func(id iothub.ID) (iothub.Secret, *tls.Certificate, error) {
			token, err := iothub.MintToken(id.Resource(hubName), "", time.Now().Add(time.Hour), key.Signer())
			return token, nil, err
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 3)
	for _, run := range []func(context.Context) error{
		func(ctx context.Context) error { return server.Serve(ctx, l, mqtt.Origin{}) }, st.Run, u.Run,
	} {
		go func() {
			_ = run(ctx)
			ended <- struct{}{}
		}()
	}
	b.Cleanup(func() {
		cancel()
		for range cap(ended) {
			<-ended
		}
		_ = st.Close()
	})
	u.SetIdentities(ids)
	return st.Queue(), hub.got, u
}

// BenchmarkDrain is how fast a backlog leaves: 256 bytes a message, TLS on loopback, the hub in the same process.
func BenchmarkDrain(b *testing.B) {
	queue, got, u := onLoopback(b, nil)
	m := message.Message{Source: filter, Output: "out", Body: make([]byte, 256), Accepted: time.Now()}
	rec := store.Record{Body: m.Append(nil), Entries: []store.Entry{{Sink: "upstream/filter"}}}
	stored := make(chan error, b.N)
	for range b.N {
		queue.Enqueue(rec, func(err error) { stored <- err })
	}
	for range b.N {
		if err := <-stored; err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	u.SetIdentities([]iothub.ID{filter})
	for range b.N {
		<-got
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkIdleLink is what one connected link costs while nothing happens, the hub's side (two goroutines) included.
func BenchmarkIdleLink(b *testing.B) {
	const links = 50
	for b.Loop() {
		var ids []iothub.ID
		for i := range links {
			ids = append(ids, iothub.ID{Device: "edge1", Module: fmt.Sprint("m", i)})
		}
		_, _, u := onLoopback(b, nil)
		goroutines, heap, stack := usage()
		u.SetIdentities(ids)
		for up := 0; up < links; {
			up = 0
			runtime.Gosched()
			for _, s := range u.Status() {
				if s.Connected {
					up++
				}
			}
		}
		g, h, s := usage()
		b.ReportMetric(float64(g-goroutines)/links, "goroutines/link")
		b.ReportMetric(float64(h-heap)/links, "heap-B/link")
		b.ReportMetric(float64(s-stack)/links, "stack-B/link")
	}
}

func usage() (goroutines int, heap, stack int64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), int64(m.HeapAlloc), int64(m.StackInuse)
}
