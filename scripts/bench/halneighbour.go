package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	floodRate  = 10_000 // requests a second
	floodConns = 8
	floodSlot  = time.Millisecond
)

// flood is a module that asks without end, in a process of its own: floodRate writes a second over several connections.
func flood(path string) error {
	var all sync.WaitGroup
	errs := make(chan error, floodConns)
	start := time.Now()
	for range floodConns {
		all.Go(func() {
			c := newPutOf(path, "relay-1")
			for i := 0; ; i++ {
				if due := time.Duration(i) * time.Second * floodConns / floodRate; time.Since(start) < due {
					time.Sleep(max(due-time.Since(start), floodSlot))
				}
				if err := c.once(); err != nil {
					errs <- err
					return
				}
				if i%floodRate == 0 {
					fmt.Println(i)
				}
			}
		})
	}
	return <-errs
}

// halNeighbour is what one module sees of another that asks 10,000 times a second: the 99th percentile of its own writes beside its
// quiet one, taken in turn.
func halNeighbour(_ *pins, s size) ([]row, error) {
	dir, err := os.MkdirTemp("", "sandpiper-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p, err := startPins(dir, halResources(2))
	if err != nil {
		return nil, err
	}
	defer p.stop()
	other := filepath.Join(dir, "other.sock")
	l, err := net.Listen("unix", other)
	if err != nil {
		return nil, err
	}
	if err := p.serve(l, "other", "relay-1"); err != nil {
		return nil, err
	}
	own := newPut(p.path)
	var quiet, crowded []float64
	var most uint64
	for range s.rounds {
		for _, with := range []bool{false, true} {
			end, err := flooding(with, other)
			if err != nil {
				return nil, err
			}
			for range s.of(1500, 300) {
				time.Sleep(time.Millisecond)
				began := time.Now()
				if err := own.once(); err != nil {
					return nil, err
				}
				if took := float64(time.Since(began).Nanoseconds()) / 1000; with {
					crowded = append(crowded, took)
				} else {
					quiet = append(quiet, took)
				}
			}
			if with {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapInuse)
			}
			end()
		}
	}
	a, b := p99(crowded), p99(quiet)
	return []row{{Name: "hal.neighbour/p99", Unit: "us", Better: "lower", Ours: a, Peer: "quiet", PeerValue: b, Ratio: a / b, Rounds: s.rounds,
		Note: fmt.Sprintf("writes of one module while another process sends %d a second; the same module alone; %.1f MiB of heap at most", floodRate, float64(most)/(1<<20))}}, nil
}

func p99(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)*99/100]
}

// flooding starts the other module, if it is to be there, and returns what ends it.
func flooding(with bool, path string) (func(), error) {
	if !with {
		return func() {}, nil
	}
	cmd := exec.Command(os.Args[0], "flood", path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}
	var n [1]byte
	if _, err := out.Read(n[:]); err != nil { // it asks
		end()
		return nil, fmt.Errorf("flood on %s: %s", path, strconv.Quote(err.Error()))
	}
	return end, nil
}
