package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/sandpiper-edge/sandpiper/store"
)

// What the life of a card is reckoned with: 8 GB of TLC that takes 500 cycles, and a controller that writes four times what it is
// given. Arithmetic, not measurement.
const (
	cardBytes     = 8e9
	cardCycles    = 500
	amplification = 4
	dayOfSeconds  = 86400
)

// wearRow is one design at one rate.
type wearRow struct {
	design  string
	rate    int
	each    float64 // device bytes per message
	flushes float64 // per second
}

func (w wearRow) perDay() float64 { return w.each * float64(w.rate) * dayOfSeconds }
func (w wearRow) years() float64 {
	return cardBytes * cardCycles / amplification / w.perDay() / 365
}

// wearRows measures strict 256 B messages at 1, 10 and 100 a second, ours being drained meanwhile, and prints how long a card lives.
// All runs go at once, each on a device of its own.
func wearRows(s size) ([]row, error) {
	if why := deviceMissing(); why != "" {
		fmt.Fprintf(os.Stderr, "\n*** store: %s ***\n\n", why)
		return []row{{Name: "store.wear", Better: "lower", Peer: goal, Note: why}}, nil
	}
	took := time.Duration(s.of(int(60*time.Second), int(3*time.Second)))
	designs, rates := []string{"ours", "rawlog", "sqlite", "pebble"}, []int{1, 10, 100}
	table := make([]wearRow, len(designs)*len(rates))
	errs := make([]error, len(table))
	var wg sync.WaitGroup
	fmt.Fprintf(os.Stderr, "store.wear: %d runs at once for %s\n", len(table), took)
	for i := range table {
		table[i] = wearRow{design: designs[i/len(rates)], rate: rates[i%len(rates)]}
		wg.Go(func() { errs[i] = table[i].measure(took) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "Flash life: strict 256 B messages for %s each, ext4 defaults; a card of 8 GB, 500 cycles, controller writes x%d\n", took, amplification)
	fmt.Fprintln(t, "DESIGN\tMSG/S\tDEVICE B/MSG\tGB/DAY\tFLUSHES/S\tYEARS")
	for _, w := range table {
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.1f\n", w.design, w.rate, w.each, w.perDay()/1e9, w.flushes, w.years())
	}
	fmt.Fprintln(t)
	var rows []row
	for i, w := range table[len(rates):] {
		o := table[i%len(rates)]
		rows = append(rows, row{
			Name: fmt.Sprintf("store.wear/%d", w.rate), Unit: "B/day", Better: "lower", Ours: o.perDay(), Peer: w.design, PeerValue: w.perDay(),
			Ratio: o.each / w.each, Rounds: 1, Note: fmt.Sprintf("device bytes at %d msg/s, strict 256 B; ours drained meanwhile; %.1f against %.1f years", w.rate, o.years(), w.years()),
		})
	}
	return rows, t.Flush()
}

func (w *wearRow) measure(took time.Duration) (err error) {
	d, err := newDevice(512 << 20)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	dir := filepath.Join(d.dir, "e")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	e, err := engines[w.design](dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	body := make([]byte, bodySize)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drained := make(chan error, 1)
	if o, ok := e.(*oursEngine); ok {
		go func() { drained <- consume(ctx, o.store.Queue()) }()
	} else {
		drained <- nil
	}
	for range 5 {
		if err := e.append(body); err != nil {
			return err
		}
	}
	before, err := d.count()
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Second / time.Duration(w.rate))
	defer tick.Stop()
	n := int(took.Seconds() * float64(w.rate))
	for range n {
		<-tick.C
		if err := e.append(body); err != nil {
			return err
		}
	}
	after, err := d.count()
	if err != nil {
		return err
	}
	cancel()
	t := after.minus(before)
	w.each, w.flushes = t.bytes/float64(n), t.flushes/took.Seconds()
	return <-drained
}

// consume delivers what comes in, as the link to the hub does.
func consume(ctx context.Context, q *store.Queue) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.Ready(benchSink):
			if _, err := drain(q, 256, 0); err != nil {
				return err
			}
		}
	}
}
