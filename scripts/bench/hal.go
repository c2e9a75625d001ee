package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/agent/workload"
	"github.com/sandpiper-edge/sandpiper/hal"
)

const halModule = "bench"

// halTurns is in how many turns a round of pins is split: a request is short beside the minutes in which a machine is slow.
const halTurns = 8

// pins is a simulated board behind a module's socket.
type pins struct {
	sim    *hal.Sim
	server *hal.Server
	path   string // of the socket; "" = none is served
	life   context.Context
	all    *sync.WaitGroup
	doors  *workload.Server
	stop   func()
}

func halResources(lines int) []hal.Resource {
	zero := 0.0
	list := []hal.Resource{{Name: "door", Kind: hal.KindLine, Bus: "in", Allow: []string{"*"}, Line: &hal.LinePart{Direction: hal.In}, Sim: &hal.Wave{FIFO: 1024}}}
	for i := range lines {
		list = append(list, hal.Resource{Name: fmt.Sprintf("relay-%d", i), Kind: hal.KindLine, Bus: "out", Safe: &zero, Allow: []string{"*"}, Line: &hal.LinePart{Direction: hal.Out}})
	}
	return list
}

// startPins serves a board on a socket in dir.
func startPins(dir string, list []hal.Resource) (p *pins, err error) {
	p = &pins{sim: hal.NewSim()}
	if p.server, err = hal.New(hal.ServerConfig{Resources: list, Backend: p.sim}); err != nil {
		return nil, err
	}
	var grants []hal.Grant
	for _, r := range list {
		grants = append(grants, hal.Grant{Name: r.Name, Read: true, Write: r.Output()})
	}
	if err := p.server.Grant(halModule, grants); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = p.server.Run(ctx) })
	p.life, p.all, p.stop = ctx, &all, func() { cancel(); all.Wait() }
	if dir == "" {
		return p, nil
	}
	p.doors, err = workload.New(workload.Config{
		Generation: func(string) (string, bool) { return "", true }, Keys: struct{ workload.Keys }{}, Authority: struct{ workload.Authority }{},
		Broker: struct{ workload.Broker }{}, Twins: new(twin.Keeper), Hal: p.server,
	})
	if err != nil {
		return nil, err
	}
	p.path = filepath.Join(dir, "module.sock")
	l, err := net.Listen("unix", p.path)
	if err != nil {
		return nil, err
	}
	return p, p.serve(l, halModule)
}

// serve opens the door of a module on l, with what it is granted beside what it has.
func (p *pins) serve(l net.Listener, module string, names ...string) error {
	var grants []hal.Grant
	for _, name := range names {
		grants = append(grants, hal.Grant{Name: name, Read: true, Write: true})
	}
	if len(grants) > 0 {
		if err := p.server.Grant(module, grants); err != nil {
			return err
		}
	}
	p.all.Go(func() {
		_ = p.doors.Serve(p.life, l, workload.Caller{ID: iothub.ID{Device: "edge1", Module: module}, UIDCount: 1 << 31})
	})
	return nil
}

// halRows measures pins: what a worker, a request, a frame cost beside the plain call, and what is lost, safe and held.
func halRows(s size) ([]row, error) {
	dir, err := os.MkdirTemp("", "sandpiper-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p, err := startPins(dir, halResources(1))
	if err != nil {
		return nil, err
	}
	defer p.stop()
	contests := slices.DeleteFunc(halContests(p, dir, s), func(c contest) bool { return !s.wants(c.name) })
	// Both ends of a contest live in this process. On one processor their work is measured; on two, where the scheduler happens to put
	// them, and on a loaded machine a request that changes processors takes twice as long, ours or not.
	processors := runtime.GOMAXPROCS(1)
	rows, err := measureAll(contests, s.rounds*halTurns)
	runtime.GOMAXPROCS(processors)
	if err != nil {
		return nil, err
	}
	for _, more := range []struct {
		name string
		rows func(*pins, size) ([]row, error)
	}{{"hal.events/lost", halEvents}, {"hal.neighbour/p99", halNeighbour}, {"hal.safe/p99", halSafe}, {"hal.heap", halHeap}, {"hal.size", halSize}} {
		if !s.wants(more.name) {
			continue
		}
		list, err := more.rows(p, s)
		if err != nil {
			return nil, err
		}
		rows = append(rows, list...)
	}
	return rows, nil
}

func halContests(p *pins, dir string, s size) []contest {
	ctx := context.Background()
	plain := plainLine()
	v := 0.0
	n := s.of(20_000/halTurns, 100)
	direct := func() (float64, error) {
		return p50(n, 20, func() error { v = 1 - v; return plain.Set(ctx, v != 0) })
	}
	hop := func() (float64, error) {
		return p50(n, 20, func() error {
			v = 1 - v
			_, err := p.server.Write(ctx, halModule, "relay-0", v, 0, 0)
			return err
		})
	}
	one := func(c halClient) func() (float64, error) {
		return func() (float64, error) { return p50(n/2, 1, c.once) }
	}
	put, noop := newPut(p.path), newNoop(dir)
	framed, echo := newFramed(p.path, 1), newEcho(dir)
	batch := newFramed(p.path, 64)
	return []contest{
		{name: "hal.hop", unit: "ns", better: "lower", ours: hop, peers: []peer{{name: "direct", run: direct, note: "a write through the server, its caller taking the turn of an idle bus; the plain call on sim; p50"}}},
		{name: "hal.http", unit: "ns", better: "lower", ours: one(put), peers: []peer{{name: "noop", run: one(noop), note: "PUT over the module's socket, kept alive; an empty handler behind a server with the same limits; both ends on one processor; p50"}}},
		{name: "hal.stream", unit: "ns", better: "lower", ours: one(framed), peers: []peer{{name: "echo", run: one(echo), note: "a write in a frame; frames of the same length sent back as they are; both ends on one processor; p50"}}},
		{name: "hal.batch", unit: "ns/op", better: "lower", ours: func() (float64, error) {
			ns, err := p50(n/8, 1, batch.once)
			return ns / 64, err
		}, peers: []peer{{name: "direct", run: direct, note: "64 writes in a frame, each; the plain call on sim; p50"}}},
	}
}

// plainLine is a line of a simulated board without a server: the plain call.
func plainLine() hal.Line {
	list := halResources(1)
	sim := hal.NewSim()
	for _, r := range list {
		dev, err := sim.Open(context.Background(), r)
		if err != nil {
			panic(err) // a simulated board of two lines opens
		}
		if l, ok := dev.(hal.Line); ok && r.Output() {
			return l
		}
	}
	panic("no output")
}

// p50 is the median time of one call in ns, of n rounds of block calls.
func p50(n, block int, call func() error) (float64, error) {
	times := make([]float64, n)
	for i := range times {
		start := time.Now()
		for range block {
			if err := call(); err != nil {
				return 0, err
			}
		}
		times[i] = float64(time.Since(start).Nanoseconds()) / float64(block)
	}
	return median(times), nil
}

// halEvents toggles an input 10,000 times a second and counts what a module hears over its stream.
func halEvents(p *pins, s size) ([]row, error) {
	const rate = 10_000
	seconds := max(1, int(5*s.scale))
	lines, end, err := stream(p.path, "/v1/hal/door/events")
	if err != nil {
		return nil, err
	}
	defer end()
	heard := make(chan [2]uint64, 1)
	go func() {
		var seen, lost, first, last uint64
		for lines.Scan() {
			var e struct{ Seq, Lost uint64 }
			if json.Unmarshal(lines.Bytes(), &e) != nil || e.Seq == 0 {
				continue
			}
			if first == 0 {
				first, lost = e.Seq, 0
			} else {
				lost += e.Lost
			}
			if last != 0 && e.Seq != last+1+e.Lost {
				lost += 1 << 32 // out of order
			}
			seen, last = seen+1, e.Seq
			if last-first+1 >= uint64(rate*seconds) {
				break
			}
		}
		heard <- [2]uint64{seen, lost}
	}()
	start := time.Now()
	for i := range rate * seconds {
		for time.Since(start) < time.Duration(i)*time.Second/rate {
			time.Sleep(50 * time.Microsecond)
		}
		p.sim.Set("door", float64((i+1)%2))
	}
	select {
	case got := <-heard:
		return []row{{Name: "hal.events/lost", Unit: "events", Better: "lower", Ours: float64(uint64(rate*seconds)-got[0]) + float64(got[1]), Peer: goal, Rounds: 1,
			Note: fmt.Sprintf("of %d at 10 kHz for %d s over a module's stream; %d came", rate*seconds, seconds, got[0])}}, nil
	case <-time.After(10 * time.Second):
		return nil, errors.New("hal.events: the last events did not come")
	}
}

// halSafe kills the program of a module in a sandbox, and waits for the pin: the runtime sees its end, and the relay falls.
func halSafe(_ *pins, s size) ([]row, error) {
	const name, most, note = "hal.safe/p99", 50, "from SIGKILL of a module's program in its sandbox, over the runtime's word that it ended, to the safe level on the pin"
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "hal: not root, so no sandbox can be made: hal.safe is NOT measured")
		return []row{{Name: name, Unit: "ms", Better: "lower", Note: "not measured: not root"}}, nil
	}
	y, err := newYard()
	if err != nil {
		return nil, err
	}
	defer y.close()
	module := y.module("/bin/sleep")
	module.Args = append(module.Args, "60")
	own, err := y.starting("safe", "safe", module)
	if err != nil {
		return nil, err
	}
	var times []float64
	for range s.of(200, 20) {
		var ns int64
		if _, err := fmt.Fprintln(own.in); err != nil {
			return nil, fmt.Errorf("hal.safe: %w", err)
		}
		if !own.out.Scan() {
			return nil, errors.Join(errors.New("hal.safe: the starter ended"), own.out.Err())
		}
		if _, err := fmt.Sscanf(own.out.Text(), "ok %d", &ns); err != nil {
			return nil, fmt.Errorf("hal.safe: %s", own.out.Text())
		}
		times = append(times, float64(ns)/1e6)
	}
	slices.Sort(times)
	return []row{against(name, "ms", "lower", times[len(times)*99/100], most, note)}, nil
}

// halHeap is what 64 resources and 16 open streams hold.
func halHeap(*pins, size) ([]row, error) {
	dir, err := os.MkdirTemp("", "sandpiper-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	list := halResources(48)
	for i := range 15 {
		list = append(list, hal.Resource{Name: fmt.Sprintf("door-%d", i), Kind: hal.KindLine, Bus: "in", Allow: []string{"*"}, Line: &hal.LinePart{Direction: hal.In}})
	}
	before := heapInUse()
	p, err := startPins(dir, list)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	for _, r := range list {
		if r.Output() {
			continue
		}
		if _, end, err := stream(p.path, "/v1/hal/"+r.Name+"/events"); err != nil {
			return nil, err
		} else {
			defer end()
		}
	}
	after := heapInUse()
	runtime.KeepAlive(p)
	return []row{against("hal.heap", "B", "lower", float64(after)-float64(before), 1.5*(1<<20), fmt.Sprintf("%d resources and 16 open streams, both ends", len(list)))}, nil
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
