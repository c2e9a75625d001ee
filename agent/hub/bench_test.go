package hub_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// BenchmarkTelemetry is messages of 256 bytes over TLS, each acknowledged when the disk has it, both ends in this process.
func BenchmarkTelemetry(b *testing.B) {
	for _, shape := range []struct{ clients, window int }{{1, 1}, {1, 64}, {10, 16}} {
		b.Run(fmt.Sprintf("%dx%d", shape.clients, shape.window), func(b *testing.B) {
			h := hubtest.New(b, hubtest.Options{})
			var g sync.WaitGroup
			ready := make(chan struct{}, shape.clients)
			begin := make(chan struct{})
			for c := range shape.clients {
				device := fmt.Sprint("edge", c)
				cs, err := h.CreateDevice(b.Context(), device)
				if err != nil {
					b.Fatal(err)
				}
				token, err := hubtest.Token(cs)
				if err != nil {
					b.Fatal(err)
				}
				g.Go(func() {
					nc, err := (&tls.Dialer{NetDialer: new(net.Dialer), Config: h.TLS()}).DialContext(context.Background(), "tcp", h.MQTT)
					if err != nil {
						b.Error(err)
						ready <- struct{}{}
						return
					}
					defer nc.Close()
					o := mqtttest.Options{ClientID: device, UserName: userName(cs), Password: token.Reveal()}
					started := func() { ready <- struct{}{}; <-begin }
					if err := mqtttest.Pump(nc, o, "devices/"+device+"/messages/events/", make([]byte, 256), b.N/shape.clients+1, shape.window, started); err != nil {
						b.Error(err)
					}
				})
			}
			for range shape.clients {
				<-ready
			}
			b.ResetTimer()
			close(begin)
			g.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
