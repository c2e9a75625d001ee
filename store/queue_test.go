package store_test

import (
	"fmt"
	"testing"

	"github.com/sandpiper-edge/sandpiper/store"
	"github.com/sandpiper-edge/sandpiper/store/storetest"
)

func rec(body, sink string, priority uint8) store.Record {
	return store.Record{Body: []byte(body), Entries: []store.Entry{{Sink: sink, Priority: priority}}}
}

func TestSmoke(t *testing.T) {
	s := storetest.Open(t, store.Config{})
	for i := range 1000 {
		if err := s.Queue().Append(t.Context(), rec(fmt.Sprint(i), "a", uint8(i%3)), rec(fmt.Sprint(i), "b", 10)); err != nil {
			t.Fatal(err)
		}
	}
	got := storetest.Bodies(t, s, "a")
	t.Log(len(got), got[:5], s.Usage(), s.Queue().Stats())
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("publishers=%d", n), func(b *testing.B) {
			s := storetest.Open(b, store.Config{MaxBytes: 8 << 30})
			body := make([]byte, 256)
			rec := store.Record{Body: body, Entries: []store.Entry{{Sink: "upstream/m"}}}
			before := s.Usage()
			b.ReportAllocs()
			b.ResetTimer()
			next := make(chan struct{})
			done := make(chan error)
			for range n {
				go func() {
					for range next {
						if err := s.Queue().Append(b.Context(), rec); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range b.N {
				next <- struct{}{}
			}
			close(next)
			for range n {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			report(b, before, s.Usage())
		})
	}
}

func BenchmarkEnqueue(b *testing.B) {
	for _, n := range []int{16, 64, 256} {
		b.Run(fmt.Sprintf("inflight=%d", n), func(b *testing.B) {
			s := storetest.Open(b, store.Config{MaxBytes: 8 << 30})
			rec := store.Record{Body: make([]byte, 256), Entries: []store.Entry{{Sink: "upstream/m"}}}
			before := s.Usage()
			window := make(chan struct{}, n)
			done := func(err error) {
				if err != nil {
					b.Error(err)
				}
				<-window
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				window <- struct{}{}
				s.Queue().Enqueue(rec, done)
			}
			for range n {
				window <- struct{}{}
			}
			b.StopTimer()
			report(b, before, s.Usage())
		})
	}
}

func report(b *testing.B, before, after store.Usage) {
	records := float64(after.Records - before.Records)
	b.ReportMetric(records/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(after.Flushes-before.Flushes)/records, "flushes/record")
	b.ReportMetric(float64(after.Written-before.Written)/1024/records, "KiB/record")
}
