package broker_test

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// BenchmarkPublish is one client with 64 publishes of 256 bytes under way, to the hub's lane of a store on disk: acks/s is what a module sees.
// The client runs in the same process, so allocations and time are of both ends; mqtttest.Pump adds next to nothing.
func BenchmarkPublish(b *testing.B) {
	for name, secure := range map[string]bool{"1x64/pipe": false, "1x64/tls": true} {
		b.Run(name, func(b *testing.B) {
			s := settings{routes: []string{toHub}, max: 4 << 30}
			want := &tls.Config{ServerName: "localhost", MinVersion: tls.VersionTLS12}
			if secure {
				s.tls, want.RootCAs, _ = authority(b)
			}
			r := newRig(b, s)
			dial := r.mqtt.dial
			if secure {
				door := listen(b, "127.0.0.1:0")
				r.serve(door, nil)
				dialer := &tls.Dialer{Config: want}
				dial = func(ctx context.Context) (net.Conn, error) {
					return dialer.DialContext(ctx, "tcp", door.Addr().String())
				}
			}
			nc, err := dial(r.ctx)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			b.ReportAllocs()
			err = mqtttest.Pump(nc, options(mod1), events+"%24.on=out1&%24.ct=application%2Fjson/", []byte(strings.Repeat("x", 256)), b.N, 64, b.ResetTimer)
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acks/s")
		})
	}
}
