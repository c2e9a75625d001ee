package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// safe measures what the agent does when a module's program is killed: its end is seen by the runtime, told to the pins, and the relay
// falls.
func safe(r *container.Runtime, s sandbox.Spec) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	low := 0.0
	relay := hal.Resource{Name: "relay", Kind: hal.KindLine, Bus: "gpio", Safe: &low, Allow: []string{"*"}, Line: &hal.LinePart{Direction: hal.Out}}
	sim := hal.NewSim()
	pins, err := hal.New(hal.ServerConfig{Resources: []hal.Resource{relay}, Backend: sim})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- pins.Run(ctx) }()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		took, err := kill(ctx, r, s, pins, sim)
		if err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("ok", took.Nanoseconds())
	}
	cancel()
	return joinFirst(in.Err(), <-ended)
}

func kill(ctx context.Context, r *container.Runtime, s sandbox.Spec, pins *hal.Server, sim *hal.Sim) (took time.Duration, err error) {
	if err := pins.Grant(s.ID, []hal.Grant{{Name: "relay", Read: true, Write: true}}); err != nil {
		return 0, err
	}
	i, err := r.Create(ctx, s)
	if err != nil {
		return 0, err
	}
	defer func() { err = joinFirst(err, i.Destroy()) }()
	if err := i.Start(); err != nil {
		return 0, err
	}
	if _, err := pins.Write(ctx, s.ID, "relay", 1, 0, 0); err != nil {
		return 0, err
	}
	safe := make(chan error, 1)
	go func() { // as the agent does from the moment it opens the module's doors
		_, err := i.Wait(ctx)
		pins.Gone(s.ID, "module ended")
		safe <- err
	}()
	began := time.Now()
	if err := unix.Kill(i.Pid(), unix.SIGKILL); err != nil {
		return 0, err
	}
	if err := <-safe; err != nil {
		return 0, err
	}
	took = time.Since(began)
	if got := sim.Trace("relay"); !slices.Equal(got[max(0, len(got)-2):], []float64{1, 0}) {
		return 0, fmt.Errorf("the pin went %v, want 1 and 0 at the end", got)
	}
	return took, nil
}
