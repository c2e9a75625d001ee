package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The size of the kill soak.
const (
	killModules = 16
	// wardenEach is the share of kills that hit the warden, and with it the agent: an init system starts both again. It is often enough
	// that the warden's pause for an agent that dies young again and again does not become most of the run.
	wardenEach = 4
)

// playKill is `make soak SOAK=kill`: sixteen modules publish without pause while the agent is killed again and again, at any moment, its
// start included. Then everything that a module was told to be safe must be in the hub's log, in the order in which it was sent.
func (s *stage) playKill(ctx context.Context, kills int, seed uint64) error {
	random := rand.New(rand.NewPCG(seed, seed))
	s.say("kill soak: %d kills, %d modules, seed %d", kills, killModules, seed)
	if err := s.step("bundles built and signed", func() error { return s.buildGauges(ctx) }); err != nil {
		return err
	}
	if err := s.step("hub started, device created", func() error { return s.startHub(ctx) }); err != nil {
		return err
	}
	if err := s.step("agent started", func() error { return s.startAgent(ctx) }); err != nil {
		return err
	}
	if err := s.step("deployment applied, telemetry of every module arrived", func() error {
		if err := s.deploy(ctx); err != nil {
			return err
		}
		return s.untilPhase(ctx, "one", 1)
	}); err != nil {
		return err
	}
	before, err := s.instances(ctx)
	if err != nil {
		return err
	}
	if err := s.step(fmt.Sprintf("agent killed %d times", kills), func() error { return s.killAgain(ctx, kills, random) }); err != nil {
		return err
	}
	if err := s.agentAnswers(ctx); err != nil {
		return err
	}
	if err := s.desire(ctx, `{"phase":"two"}`); err != nil {
		return err
	}
	if err := s.step("every module still reports", func() error { return s.untilPhase(ctx, "two", 3) }); err != nil {
		return err
	}
	after, err := s.instances(ctx)
	if err != nil {
		return err
	}
	if err := same(before, after); err != nil {
		return fmt.Errorf("modules did not live through the kills: %w", err)
	}
	var sent map[string]int
	if err := s.step("modules stopped and said how many messages were acknowledged", func() error {
		sent, err = s.settle(ctx)
		return err
	}); err != nil {
		return err
	}
	if err := s.close(ctx, sent); err != nil {
		return err
	}
	book, err := s.readEvents(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("soak: kills=%d modules=%d out-of-order=%d\n", kills, killModules, book.disorder)
	if book.disorder > 0 {
		return fmt.Errorf("%d messages arrived first behind a later one of their module", book.disorder)
	}
	return nil
}

func (s *stage) buildGauges(ctx context.Context) error {
	key := filepath.Join(s.work, "release.key")
	if _, err := s.tool(ctx, "sandpiper-bundle", "keygen", "-o", key); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.work, "bundles"), 0o755); err != nil {
		return err
	}
	for i := range killModules {
		name := fmt.Sprintf("gauge%02d", i)
		if _, err := s.tool(ctx, "sandpiper-bundle", "build", "-o", s.bundle(name), "--name", name, "--version", "1.0.0", "--sequence", "1", "--key", key,
			"--go", "./scripts/demo/modules/gauge"); err != nil {
			return err
		}
		s.modules = append(s.modules, module{name: name, kind: "sandbox", period: 20})
	}
	return nil
}

// killAgain kills at random moments of the agent's life, and now and then waits until the hub has something new: kills that leave no
// time for work would prove nothing.
func (s *stage) killAgain(ctx context.Context, kills int, random *rand.Rand) error {
	last := 0
	for i := range kills {
		pid, err := s.childOf(ctx, last)
		if err != nil {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond+time.Duration(random.Int64N(int64(1200*time.Millisecond)))); err != nil {
			return err
		}
		if i%wardenEach == wardenEach-1 {
			if err := s.killWhole(ctx); err != nil {
				return err
			}
			last = pid
		} else {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill agent: %w", err)
			}
			last = pid
		}
		if i%10 == 9 {
			total := s.events.total()
			if err := until(ctx, 60*time.Second, "the hub hears something new", func() (bool, error) { return s.events.total() > total, nil }); err != nil {
				return err
			}
		}
		if i%50 == 49 {
			s.say("%d kills, %d messages at the hub", i+1, s.events.total())
		}
	}
	return nil
}

// killWhole kills the warden, with which the agent goes, and starts it again.
func (s *stage) killWhole(ctx context.Context) error {
	if err := s.agent.Process.Kill(); err != nil {
		return err
	}
	_ = s.agent.Wait() // ended by a signal, which is no success
	return s.runAgent(ctx)
}

// childOf is the agent below the warden, once it is another than last.
func (s *stage) childOf(ctx context.Context, last int) (pid int, err error) {
	warden := s.agent.Process.Pid
	list := fmt.Sprintf("/proc/%d/task/%d/children", warden, warden)
	err = until(ctx, 20*time.Second, "the warden starts an agent", func() (bool, error) {
		raw, err := os.ReadFile(list)
		if err != nil {
			return false, err
		}
		for _, field := range strings.Fields(string(raw)) {
			args, err := os.ReadFile("/proc/" + field + "/cmdline")
			if err != nil || !bytes.Contains(args, []byte("\x00--child\x00")) {
				continue
			}
			if pid, err = strconv.Atoi(field); err == nil && pid != last {
				return true, nil
			}
		}
		return false, nil
	})
	return pid, err
}
