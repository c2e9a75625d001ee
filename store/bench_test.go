package store_test

import (
	"fmt"
	"testing"

	"github.com/sandpiper-edge/sandpiper/store"
	"github.com/sandpiper-edge/sandpiper/store/storetest"
)

var telemetry = store.Record{Body: make([]byte, 256), Entries: []store.Entry{{Sink: "upstream/meter"}}}

// BenchmarkAppend: publishers that each wait for the disk before the next
// message.
func BenchmarkAppend(b *testing.B) {
	for _, publishers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("publishers=%d", publishers), func(b *testing.B) {
			s := storetest.Open(b, store.Config{MaxBytes: 8 << 30})
			before := s.Usage()
			turns := make(chan struct{})
			ended := make(chan error)
			b.ReportAllocs()
			b.ResetTimer()
			for range publishers {
				go func() {
					var failed error
					for range turns {
						if failed == nil {
							failed = s.Queue().Append(b.Context(), telemetry)
						}
					}
					ended <- failed
				}()
			}
			for range b.N {
				turns <- struct{}{}
			}
			close(turns)
			for range publishers {
				if err := <-ended; err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			reportCost(b, before, s.Usage())
		})
	}
}

// BenchmarkEnqueue: one publisher with a window of messages not yet
// acknowledged, as an MQTT connection has it.
func BenchmarkEnqueue(b *testing.B) {
	for _, window := range []int{16, 64, 256} {
		b.Run(fmt.Sprintf("inflight=%d", window), func(b *testing.B) {
			s := storetest.Open(b, store.Config{MaxBytes: 8 << 30})
			before := s.Usage()
			inFlight := make(chan struct{}, window)
			done := func(err error) {
				if err != nil {
					b.Error(err)
				}
				<-inFlight
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				inFlight <- struct{}{}
				s.Queue().Enqueue(telemetry, done)
			}
			for range window {
				inFlight <- struct{}{}
			}
			b.StopTimer()
			reportCost(b, before, s.Usage())
		})
	}
}

// BenchmarkDrain: a backlog is read and acknowledged with a window of 256.
func BenchmarkDrain(b *testing.B) {
	s := storetest.Open(b, store.Config{MaxBytes: 8 << 30})
	for left := b.N; left > 0; {
		recs := make([]store.Record, min(left, 1000))
		for i := range recs {
			recs[i] = telemetry
		}
		if err := s.Queue().Append(b.Context(), recs...); err != nil {
			b.Fatal(err)
		}
		left -= len(recs)
	}
	before := s.Usage()
	b.ReportAllocs()
	b.ResetTimer()
	for left, at := b.N, (store.Cursor{}); left > 0; {
		items, next, err := s.Queue().Peek("upstream/meter", at, 256, 1<<20)
		if err != nil || len(items) == 0 {
			b.Fatalf("got %d items and %v with %d left", len(items), err, left)
		}
		if err := s.Queue().Ack("upstream/meter", items...); err != nil {
			b.Fatal(err)
		}
		at = next
		left -= len(items)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(s.Usage().Written-before.Written)/float64(b.N), "B-written/record")
}

// reportCost adds what a record cost the disk: bytes in whole pages and flushes,
// those of the file system itself not counted.
func reportCost(b *testing.B, before, after store.Usage) {
	b.Helper()
	records := float64(after.Records - before.Records)
	b.ReportMetric(records/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(after.Flushes-before.Flushes)/records, "flushes/record")
	b.ReportMetric(float64(after.Written-before.Written)/1024/records, "KiB/record")
}
