package mqtt_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// countingListener counts the writes of all connections it accepted.
type countingListener struct {
	net.Listener
	writes atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{Conn: nc, writes: &l.writes}, nil
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// batcher acknowledges as the store does: one goroutine takes what has queued and acknowledges all of it.
type batcher struct {
	queue chan *mqtt.Publish
}

func (b *batcher) run() {
	var batch []*mqtt.Publish
	for p := range b.queue {
		batch = append(batch[:0], p)
		for more := true; more && len(batch) < 256; {
			select {
			case p, ok := <-b.queue:
				if more = ok; ok {
					batch = append(batch, p)
				}
			default:
				more = false
			}
		}
		for _, p := range batch {
			p.Ack()
		}
	}
}

// BenchmarkPublish: 256 bytes, QoS 1, on loopback; the acknowledgement comes at once or from a batching goroutine. Peer's numbers need no disk here,
// so this is the ceiling of the session loop, not of the broker.
func BenchmarkPublish(b *testing.B) {
	cert, pool := certtest.New(b, "localhost")
	for _, shape := range []struct{ clients, window int }{{1, 1}, {1, 64}, {10, 16}} {
		for _, mode := range []string{"now", "batched"} {
			for _, secure := range []bool{false, true} {
				wire := "plain"
				if secure {
					wire = "tls"
				}
				b.Run(fmt.Sprintf("%dx%d/%s/%s", shape.clients, shape.window, mode, wire), func(b *testing.B) {
					r := newRecorder()
					if mode == "batched" {
						batch := &batcher{queue: make(chan *mqtt.Publish, 4096)}
						var running sync.WaitGroup
						running.Go(batch.run)
						defer running.Wait()
						defer close(batch.queue)
						r.publish = func(p *mqtt.Publish) { batch.queue <- p }
					}
					cfg := mqtt.Config{Handler: r}
					var client *tls.Config
					if secure {
						cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
						client = &tls.Config{RootCAs: pool, ServerName: "localhost"}
					}
					pump(b, cfg, client, shape.clients, shape.window)
				})
			}
		}
	}
}

func pump(b *testing.B, cfg mqtt.Config, client *tls.Config, clients, window int) {
	b.Helper()
	s, err := mqtt.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	l := &countingListener{Listener: plain}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Serve(ctx, l, mqtt.Origin{}) })
	defer running.Wait()
	defer stop()

	payload := bytes.Repeat([]byte("x"), 256)
	var ready, work sync.WaitGroup
	ready.Add(clients)
	start := make(chan struct{})
	each := b.N/clients + 1
	for i := range clients {
		work.Go(func() {
			nc, err := net.Dial("tcp", plain.Addr().String())
			if err != nil {
				b.Error(err)
				return
			}
			defer nc.Close()
			if client != nil {
				nc = tls.Client(nc, client)
			}
			o := mqtttest.Options{ClientID: fmt.Sprintf("edge1/m%d", i)}
			topic := fmt.Sprintf("devices/edge1/modules/m%d/messages/events/", i)
			if err := mqtttest.Pump(nc, o, topic, payload, each, window, func() { ready.Done(); <-start }); err != nil {
				b.Error(err)
			}
		})
	}
	ready.Wait()
	l.writes.Store(0)
	b.ReportAllocs()
	b.ResetTimer()
	close(start)
	work.Wait()
	b.StopTimer()
	total := float64(each * clients)
	b.ReportMetric(total/b.Elapsed().Seconds(), "acks/s")
	b.ReportMetric(float64(l.writes.Load())/total, "writes/ack")
}
