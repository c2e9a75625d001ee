package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	device  = "edge1"
	hubHost = "hub.sandpiper.test"
)

// startAgent starts the agent with a configuration as a technician would write it.
func (s *stage) startAgent(ctx context.Context) error {
	config := fmt.Sprintf(`state_dir = %q
run_dir = %q

[device]
connection_string_file = %q
gateway = "gateway"

[upstream]
mqtt_address = %q
https_address = %q
trusted_ca = %q

[bundles]
trusted_ca = %q

[[bundles.trusted_keys]]
file = %q
`, filepath.Join(s.work, "state"), s.runDir(), filepath.Join(s.work, "connection-string"), s.link.addr, s.hubHTTPS,
		filepath.Join(s.hubDir(), "ca.pem"), filepath.Join(s.hubDir(), "ca.pem"), filepath.Join(s.work, "release.pub"))
	if err := os.WriteFile(filepath.Join(s.work, "config.toml"), []byte(config+s.config), 0o600); err != nil {
		return err
	}
	return s.runAgent(ctx)
}

func (s *stage) runAgent(ctx context.Context) error {
	var err error
	if s.agent, err = s.spawn("sandpiper", "agent", "--config", filepath.Join(s.work, "config.toml")); err != nil {
		return err
	}
	return s.agentAnswers(ctx)
}

func (s *stage) agentAnswers(ctx context.Context) error {
	return until(ctx, 30*time.Second, "the agent answers", func() (bool, error) {
		_, err := s.status(ctx)
		return err == nil, err
	})
}

// deploy applies a manifest at the hub: bundles come from the hub by https, except one that is already on the device.
func (s *stage) deploy(ctx context.Context) error {
	modules := map[string]any{}
	for i, m := range s.modules {
		image := fmt.Sprintf("https://%s/bundles/%s.spb", "localhost:"+portOf(s.hubHTTPS), m.name)
		if i == 0 {
			image = "file://" + s.bundle(m.name)
		}
		settings := map[string]any{"image": image}
		if m.memory != "" {
			settings["limits"] = map[string]any{"memory": m.memory}
		}
		modules[m.name] = map[string]any{"type": m.kind, "status": "running", "restartPolicy": "always", "settings": settings}
	}
	content := map[string]any{
		"$edgeAgent": map[string]any{"properties.desired": map[string]any{"schemaVersion": "1.1",
			"runtime": map[string]any{"type": "docker", "settings": map[string]any{}},
			"systemModules": map[string]any{
				"edgeAgent": map[string]any{"type": "docker", "settings": map[string]any{"image": "sandpiper"}},
				"edgeHub":   map[string]any{"type": "docker", "status": "running", "restartPolicy": "always", "settings": map[string]any{"image": "sandpiper"}},
			},
			"modules": modules}},
		"$edgeHub": map[string]any{"properties.desired": map[string]any{"schemaVersion": "1.1",
			"routes":                       map[string]any{"up": "FROM /messages/* INTO $upstream"},
			"storeAndForwardConfiguration": map[string]any{"timeToLiveSecs": 7200}}},
	}
	for _, m := range s.modules {
		desired := map[string]any{"phase": "one"}
		if m.period > 0 {
			desired["periodMs"] = m.period
		}
		content[m.name] = map[string]any{"properties.desired": desired}
	}
	raw, err := json.Marshal(map[string]any{"modulesContent": content})
	if err != nil {
		return err
	}
	file := filepath.Join(s.work, "manifest.json")
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		return err
	}
	_, err = s.hubTool(ctx, "deploy", "apply", device, file)
	return err
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// desire changes a desired property of every module at the hub.
func (s *stage) desire(ctx context.Context, patch string) error {
	for _, m := range s.modules {
		if _, err := s.hubTool(ctx, "twin", "set", device, m.name, patch); err != nil {
			return err
		}
	}
	return nil
}

// untilPhase waits until the hub has n messages of each module that were sent in a phase.
func (s *stage) untilPhase(ctx context.Context, phase string, n int) error {
	var waiting []string
	err := until(ctx, 90*time.Second, "telemetry of phase "+phase+" of every module", func() (bool, error) {
		waiting = nil
		for _, m := range s.modules {
			if _, in := s.events.count(m.name, phase); in < n {
				waiting = append(waiting, m.name)
			}
		}
		return len(waiting) == 0, fmt.Errorf("still missing: %s", strings.Join(waiting, ", "))
	})
	return err
}

// outage cuts the link for a while. Meanwhile the agent is killed twice, and every module's phase changes at the hub.
func (s *stage) outage(ctx context.Context, length time.Duration) error {
	s.link.cut()
	start := time.Now()
	for i := range 2 {
		if err := pause(ctx, length/5); err != nil {
			return err
		}
		st, err := s.status(ctx)
		if err != nil {
			return err
		}
		if err := syscall.Kill(st.Pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill agent: %w", err)
		}
		killed := time.Now()
		if err := until(ctx, 20*time.Second, "another agent answers", func() (bool, error) {
			now, err := s.status(ctx)
			return err == nil && now.Pid != st.Pid, err
		}); err != nil {
			return err
		}
		s.say("agent %d killed, its successor answers after %.2fs", st.Pid, time.Since(killed).Seconds())
		if i == 0 {
			if err := s.desire(ctx, `{"phase":"three"}`); err != nil {
				return err
			}
		}
	}
	return pause(ctx, length-time.Since(start))
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// killWarden kills the warden, and starts the agent again as an init system would.
func (s *stage) killWarden(ctx context.Context) error {
	before, err := s.instances(ctx)
	if err != nil {
		return err
	}
	if err := s.agent.Process.Kill(); err != nil {
		return err
	}
	_ = s.agent.Wait() // ended by a signal, which is no success
	if err := s.runAgent(ctx); err != nil {
		return err
	}
	after, err := s.instances(ctx)
	if err != nil {
		return err
	}
	if err := same(before, after); err != nil {
		return fmt.Errorf("modules did not live through the warden's kill: %w", err)
	}
	return nil
}

// footprint prints what the agent weighs, and how fast it was there.
func (s *stage) footprint(ctx context.Context) error {
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	agent, err := pss(st.Pid)
	if err != nil {
		return err
	}
	warden, err := pss(s.agent.Process.Pid)
	if err != nil {
		return err
	}
	s.say("memory (PSS) with %d modules: agent %.1f MiB + warden %.1f MiB = %.1f MiB", len(s.modules), agent, warden, agent+warden)
	s.say("cold start: %.0f ms from the start of the agent process until adopted modules can publish", st.ReadySeconds*1000)
	return nil
}

// pss reads a process's proportional set size, in MiB.
func pss(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no Pss of process %d", pid)
}

// thousand waits until the hub holds so many messages: a ledger of few would show little.
func (s *stage) thousand(ctx context.Context) error {
	return until(ctx, 2*time.Minute, fmt.Sprintf("the hub holds %d messages", fewest), func() (bool, error) {
		book, err := s.readEvents(ctx)
		if err != nil {
			return false, err
		}
		held := 0
		for _, m := range s.modules {
			n, _ := book.count(m.name, "")
			held += n
		}
		return held >= fewest, nil
	})
}

// settle tells every module to stop and reads from its reported properties how many messages were acknowledged to it.
func (s *stage) settle(ctx context.Context) (map[string]int, error) {
	if err := s.desire(ctx, `{"stop":true}`); err != nil {
		return nil, err
	}
	sent := map[string]int{}
	err := until(ctx, 90*time.Second, "every module reports", func() (bool, error) {
		for _, m := range s.modules {
			if sent[m.name] > 0 {
				continue
			}
			raw, err := s.hubTool(ctx, "twin", "get", device, m.name, "--json")
			if err != nil {
				return false, err
			}
			var twin struct {
				Properties struct {
					Reported struct{ Sent int } `json:"reported"`
				} `json:"properties"`
			}
			if err := json.Unmarshal(raw, &twin); err != nil {
				return false, err
			}
			if sent[m.name] = twin.Properties.Reported.Sent; sent[m.name] == 0 {
				return false, fmt.Errorf("%s has not reported", m.name)
			}
		}
		return true, nil
	})
	return sent, err
}
