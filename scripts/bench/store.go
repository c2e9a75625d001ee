package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandpiper-edge/sandpiper/store"
)

// bodySize of the records, in bytes.
const bodySize = 256

// storeRows measures the store: how fast it acknowledges, what that costs the flash, what a backlog costs.
func storeRows(s size) ([]row, error) {
	rows, err := ackRows(s)
	if err != nil {
		return nil, err
	}
	for _, part := range []func(size) ([]row, error){deviceRows, backlogRows, wearRows} {
		more, err := part(s)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// ackRows: durable acknowledgements per second of 1, 8 and 64 producers, each of which waits for its own.
func ackRows(s size) ([]row, error) {
	missing := ""
	if _, err := mosquittoPath(); err != nil {
		missing = err.Error()
	}
	var list []contest
	for _, c := range []struct{ producers, messages int }{{1, 10_000}, {8, 40_000}, {64, 80_000}} {
		took := time.Duration(s.of(int(1500*time.Millisecond), int(50*time.Millisecond)))
		each := func(name string) func() (float64, error) {
			return func() (float64, error) { return acks(name, c.producers, took) }
		}
		list = append(list, contest{
			name: fmt.Sprintf("store.ack/%d", c.producers), unit: "acks/s", better: "higher", ours: each("ours"),
			peers: []peer{
				{name: "rawlog", run: each("rawlog"), note: "256 B strict; peer: checksummed frames in a preallocated file, group commit, fdatasync; no index"},
				{name: "sqlite", run: each("sqlite"), note: "256 B strict; peer: WAL, synchronous=FULL, group commit"},
				{name: "pebble", run: each("pebble"), note: "256 B strict; peer: pebble.Sync, its own group commit"},
				{
					name: "mosquitto", missing: missing,
					note: "256 B; peer over loopback TCP with persistence: its ack is NOT durable, it comes before anything is written",
					run: func() (float64, error) {
						return plainRound(c.producers, s.of(c.messages, 1000))
					},
				},
			},
		})
	}
	return measureAll(list, s.rounds)
}

// acks lets producers append for a while and returns acknowledgements per second.
func acks(name string, producers int, took time.Duration) (rate float64, err error) {
	dir, err := os.MkdirTemp("", "sandpiper-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	e, err := engines[name](dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	body := make([]byte, bodySize)
	for range 50 {
		if err := e.append(body); err != nil {
			return 0, err
		}
	}
	var total atomic.Int64
	errs := make([]error, producers)
	start := time.Now()
	end := start.Add(took)
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() {
			n := int64(0)
			for ; time.Now().Before(end) && errs[i] == nil; n++ {
				errs[i] = e.append(body)
			}
			total.Add(n)
		})
	}
	wg.Wait()
	return float64(total.Load()) / time.Since(start).Seconds(), errors.Join(errs...)
}

// plainRound is the peer that is a broker: QoS 1 over loopback without TLS, one publish in flight for each client.
func plainRound(clients, messages int) (float64, error) {
	dir, err := os.MkdirTemp("", "sandpiper-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	b, err := mosquitto(dir, pair{})
	if err != nil {
		return 0, err
	}
	defer b.stop()
	return load{
		addr: b.addr, clients: clients, window: 1, messages: messages, size: bodySize, login: b.login,
		topic: func(i int) string { return fmt.Sprintf("devices/edge1/modules/m%d/messages/events/", i) },
	}.run()
}

// deviceRows: what the block device is asked to write for messages that come alone, in batches, and that leave.
func deviceRows(s size) ([]row, error) {
	if why := deviceMissing(); why != "" {
		fmt.Fprintf(os.Stderr, "\n*** store: %s ***\n\n", why)
		var rows []row
		for _, name := range []string{"store.flushes-per-commit", "store.device-bytes/lone", "store.device-bytes/batch", "store.drain-bytes"} {
			rows = append(rows, row{Name: name, Better: "lower", Peer: goal, Note: why})
		}
		return rows, nil
	}
	body := make([]byte, bodySize)
	lone, batches := s.of(20_000, 200), s.of(25_000, 250)
	warm := func(e engine) error {
		for range 100 {
			if err := e.append(body); err != nil {
				return err
			}
		}
		return nil
	}
	var rows []row
	var loneOurs, batchOurs float64
	for _, name := range []string{"ours", "rawlog", "sqlite", "pebble"} {
		var commits uint64
		t, err := measured(name, 2<<30, warm, func(e engine) error {
			o, isOurs := e.(*oursEngine)
			if isOurs {
				commits = o.store.Usage().Commits
			}
			for range lone {
				if err := e.append(body); err != nil {
					return err
				}
			}
			if isOurs {
				commits = o.store.Usage().Commits - commits
			}
			return nil
		}, false)
		if err != nil {
			return nil, fmt.Errorf("%s, lone: %w", name, err)
		}
		each := t.bytes / float64(lone)
		fmt.Fprintf(os.Stderr, "store.device-bytes/lone: %s %s B and %s flushes each\n", name, figure(each), figure(t.flushes/float64(lone)))
		b, err := measured(name, 2<<30, warm, func(e engine) error {
			sixteen := make([][]byte, 16)
			for i := range sixteen {
				sixteen[i] = body
			}
			for range batches {
				if err := e.append(sixteen...); err != nil {
					return err
				}
			}
			return nil
		}, true)
		if err != nil {
			return nil, fmt.Errorf("%s, batches: %w", name, err)
		}
		perByte := b.bytes / float64(batches*16*bodySize)
		fmt.Fprintf(os.Stderr, "store.device-bytes/batch: %s %s B per byte\n", name, figure(perByte))
		if name == "ours" {
			loneOurs, batchOurs = each, perByte
			rows = append(rows,
				against("store.flushes-per-commit", "flushes", "lower", t.flushes/float64(commits), 1.02, "of the block device, lone strict publishes"),
				against("store.device-bytes/lone", "B", "lower", each, 4800, "256 B strict, one at a time, ext4's own journal included"),
				against("store.device-bytes/batch", "B/B", "lower", perByte, 3.5, "256 B strict in commits of 16, until closed: sealing included"))
			continue
		}
		rows = append(rows,
			row{Name: "store.device-bytes/lone", Unit: "B", Better: "lower", Ours: loneOurs, Peer: name, PeerValue: each, Ratio: loneOurs / each, Rounds: 1, Note: "256 B strict, one at a time"},
			row{Name: "store.device-bytes/batch", Unit: "B/B", Better: "lower", Ours: batchOurs, Peer: name, PeerValue: perByte, Ratio: batchOurs / perByte, Rounds: 1, Note: "256 B in commits of 16, until closed"})
	}
	drained := s.of(200_000, 2000)
	t, err := measured("ours", 2<<30, func(e engine) error {
		many := make([][]byte, 1000)
		for i := range many {
			many[i] = body
		}
		for range drained / len(many) {
			if err := e.append(many...); err != nil {
				return err
			}
		}
		return nil
	}, func(e engine) error {
		drained, err := drain(e.(*oursEngine).store.Queue(), 256, 2*time.Millisecond)
		if err == nil && drained == 0 {
			err = errors.New("nothing came out")
		}
		return err
	}, true)
	if err != nil {
		return nil, fmt.Errorf("drain: %w", err)
	}
	rows = append(rows, against("store.drain-bytes", "B", "lower", t.bytes/float64(drained/1000*1000), 40,
		"per message acknowledged in batches of 256, one every 2 ms, until closed"))
	return rows, nil
}

// drain takes everything out in batches with a pause behind each, and returns how many that were.
func drain(q *store.Queue, batch int, pause time.Duration) (int, error) {
	n := 0
	for {
		items, _, err := q.Peek(benchSink, store.Cursor{}, batch, 0)
		if err != nil || len(items) == 0 {
			return n, err
		}
		if err := q.Ack(benchSink, items...); err != nil {
			return n, err
		}
		n += len(items)
		if pause > 0 {
			time.Sleep(pause)
		}
	}
}
