// Command demo is the main job on one machine: a hub, an agent, four modules in sandboxes, an outage, kills, and a ledger.
//
// It starts `sandpiper-hub` and `sandpiper agent` as a user would, builds and signs a bundle for each module, deploys them
// through the hub, cuts the link, kills the agent twice and the warden once with SIGKILL, changes desired properties on the
// way, and then compares what the modules were acknowledged with what the hub's own event log holds. Its last line is
//
//	ledger: sent=N received=N duplicated=D lost=0
//
// With the argument "hal" it is `make demo-hal`: see playHal. With the argument "kill" it is the soak of `make soak SOAK=kill`: see playKill.
//
// DEMO=stay lets everything run on until Ctrl-C, and says how to look at it; DEMO_OUTAGE sets the length of the outage (default 22s).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", strings.Join(strings.Fields(err.Error()), " "))
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("sandboxes need root: namespaces, mounts and cgroups; run `make demo` as root")
	}
	outage := 22 * time.Second
	if text := os.Getenv("DEMO_OUTAGE"); text != "" {
		if outage, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("DEMO_OUTAGE: %w", err)
		}
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "sandpiper-demo-")
	if err != nil {
		return err
	}
	if err := os.Chmod(work, 0o711); err != nil { // modules are nobody in particular and must be able to walk through it
		return err
	}
	s := &stage{bin: filepath.Join(root, "build"), source: filepath.Join(root, "scripts", "demo", "modules"), sdk: filepath.Join(root, "build", "sdk"), work: work, began: time.Now()}
	defer func() {
		if os.Getenv("DEMO") == "stay" && err == nil {
			err = s.stay(ctx)
		}
		interrupted := ctx.Err() != nil
		if interrupted && err != nil {
			err = errors.New("interrupted")
		}
		err = errors.Join(err, s.strike(err != nil && !interrupted))
	}()
	if len(os.Args) > 1 && os.Args[1] == "kill" {
		kills, seed, err := killSize()
		if err != nil {
			return err
		}
		return s.playKill(ctx, kills, seed)
	}
	if len(os.Args) > 1 && os.Args[1] == "hal" {
		return s.playHal(ctx)
	}
	return s.play(ctx, outage)
}

// stay starts the modules that the story stopped, says how to look at them, and waits to be interrupted.
func (s *stage) stay(ctx context.Context) error {
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	for _, m := range st.Modules {
		if m.Pid == 0 && m.Status == "stopped" {
			if _, err := s.sandpiper(ctx, "module", "start", m.Name); err != nil {
				return err
			}
		}
	}
	s.say("everything runs on until Ctrl-C, which stops it and removes its files; in another shell:")
	fmt.Printf("  build/sandpiper --run-dir %s status\n  build/sandpiper-hub --dir %s events --follow\n", s.runDir(), s.hubDir())
	<-ctx.Done()
	return nil
}

// killSize reads SOAK_KILLS and SOAK_SEED.
func killSize() (kills int, seed uint64, err error) {
	kills, seed = 500, uint64(time.Now().UnixNano())
	if text := os.Getenv("SOAK_KILLS"); text != "" {
		if kills, err = strconv.Atoi(text); err != nil || kills < 1 {
			return 0, 0, fmt.Errorf("SOAK_KILLS %q is not a number above 0", text)
		}
	}
	if text := os.Getenv("SOAK_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("SOAK_SEED %q is not a number", text)
		}
	}
	return kills, seed, nil
}

// play is the story, a line per step with the time it took.
func (s *stage) play(ctx context.Context, outage time.Duration) error {
	if err := s.step("bundles built and signed", func() error { return s.buildBundles(ctx) }); err != nil {
		return err
	}
	if err := s.step("hub started, device created", func() error { return s.startHub(ctx) }); err != nil {
		return err
	}
	if err := s.step("agent started", func() error { return s.startAgent(ctx) }); err != nil {
		return err
	}
	if err := s.step("deployment applied at the hub, telemetry of every module arrived", func() error {
		if err := s.deploy(ctx); err != nil {
			return err
		}
		return s.untilPhase(ctx, "one", 1)
	}); err != nil {
		return err
	}
	if err := s.step("desired property changed, every module acts on it", func() error {
		if err := s.desire(ctx, `{"phase":"two"}`); err != nil {
			return err
		}
		return s.untilPhase(ctx, "two", 1)
	}); err != nil {
		return err
	}
	before, err := s.instances(ctx)
	if err != nil {
		return err
	}
	if err := s.step(fmt.Sprintf("link cut for %s, agent killed twice, desired property changed meanwhile", outage), func() error {
		return s.outage(ctx, outage)
	}); err != nil {
		return err
	}
	if err := s.step("link restored, every module acts on the change made during the outage", func() error {
		if err := s.link.restore(); err != nil {
			return err
		}
		return s.untilPhase(ctx, "three", 1)
	}); err != nil {
		return err
	}
	after, err := s.instances(ctx)
	if err != nil {
		return err
	}
	if err := same(before, after); err != nil {
		return fmt.Errorf("modules did not live through the agent's kills: %w", err)
	}
	s.say("modules lived through the agent's kills: %s", before)
	if err := s.footprint(ctx); err != nil {
		return err
	}
	if err := s.step("warden killed, agent started again", func() error { return s.killWarden(ctx) }); err != nil {
		return err
	}
	if err := s.step("every module still reports", func() error {
		if err := s.desire(ctx, `{"phase":"four"}`); err != nil {
			return err
		}
		return s.untilPhase(ctx, "four", 3)
	}); err != nil {
		return err
	}
	if err := s.step(fmt.Sprintf("the hub holds %d messages", fewest), func() error { return s.thousand(ctx) }); err != nil {
		return err
	}
	var sent map[string]int
	if err := s.step("modules stopped and said how many messages were acknowledged", func() error {
		sent, err = s.settle(ctx)
		return err
	}); err != nil {
		return err
	}
	return s.close(ctx, sent)
}

// fewest is how many messages a ledger is about at least.
const fewest = 1000

// close waits until the hub holds what was acknowledged, or has had time enough, and prints the ledger from its event log.
func (s *stage) close(ctx context.Context, sent map[string]int) error {
	patience, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		book, err := s.readEvents(ctx)
		if err != nil {
			return err
		}
		complete := true
		for module, n := range sent {
			if got, _ := book.count(module, ""); got < n {
				complete = false
			}
		}
		if complete || patience.Err() != nil {
			total, received, duplicated, lost := book.balance(os.Stdout, sent)
			for _, left := range s.leftOut {
				fmt.Println("  left out:", left)
			}
			fmt.Printf("ledger: sent=%d received=%d duplicated=%d lost=%d\n", total, received, duplicated, lost)
			switch {
			case lost > 0:
				return fmt.Errorf("%d acknowledged messages are not in the hub's log", lost)
			case total < fewest:
				return fmt.Errorf("only %d messages were sent, want %d or more", total, fewest)
			}
			return nil
		}
		select {
		case <-patience.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}
