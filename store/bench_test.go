package store_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
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

// BenchmarkBacklog: a year offline. Ten sinks get b.N messages of 200 B, the
// store is opened again and drained. Run it with -benchtime 10000000x.
func BenchmarkBacklog(b *testing.B) {
	const sinks = 10
	cfg := store.Config{Dir: b.TempDir(), MaxBytes: 64 << 30}
	s, stop := storetest.Start(b, cfg)
	recs := make([]store.Record, 0, 1000)
	for n := 0; n < b.N; n += len(recs) {
		recs = recs[:0]
		for i := range min(1000, b.N-n) {
			sink := fmt.Sprint("sink/", i*sinks/1000)
			recs = append(recs, store.Record{Body: telemetry.Body[:200], Entries: []store.Entry{{Sink: sink}}})
		}
		if err := s.Queue().Append(b.Context(), recs...); err != nil {
			b.Fatal(err)
		}
	}
	appending := b.Elapsed()
	anonymous, mapped, held := memory(b, "RssAnon"), memory(b, "RssFile"), s.Usage().Held
	stop()

	b.ResetTimer()
	s, stop = storetest.Start(b, cfg)
	opening := b.Elapsed()
	b.ResetTimer()
	var at [sinks]store.Cursor
	for left := b.N; left > 0; {
		for i := range at {
			sink := fmt.Sprint("sink/", i)
			items, next, err := s.Queue().Peek(sink, at[i], 256, 1<<20)
			if err == nil {
				err = s.Queue().Ack(sink, items...)
			}
			if err != nil {
				b.Fatal(err)
			}
			at[i] = next
			left -= len(items)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "drained/s")
	b.ReportMetric(float64(b.N)/appending.Seconds(), "appended/s")
	b.ReportMetric(float64(anonymous)/1024, "MiB-anonymous")
	b.ReportMetric(float64(mapped)/1024, "MiB-mapped")
	b.ReportMetric(float64(held)/float64(b.N), "B-held/record")
	b.ReportMetric(opening.Seconds()*1000, "ms-reopen")
	stop()
}

// memory returns a line of /proc/self/status in KiB.
func memory(b *testing.B, name string) int {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name+":" {
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("no %s in /proc/self/status", name)
	return 0
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
