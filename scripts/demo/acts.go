package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
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

// module is one of the four of the demo.
type module struct {
	name     string
	kind     string   // native or sandbox
	args     []string // of the bundle
	memory   string
	hostView bool
	env      []string
	period   int // milliseconds between two messages; 0 = the module's own
}

// buildBundles makes, builds and signs a bundle for each module whose packages are there.
func (s *stage) buildBundles(ctx context.Context) error {
	key := filepath.Join(s.work, "release.key")
	if _, err := s.tool(ctx, "sandpiper-bundle", "keygen", "-o", key); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.work, "bundles"), 0o755); err != nil {
		return err
	}
	type candidate struct {
		module
		fill func(dir string) error // nil: --go
	}
	copyTree := func(name string) func(string) error {
		return func(dir string) error { return os.CopyFS(dir, os.DirFS(filepath.Join(s.source, name))) }
	}
	list := []candidate{
		{module{name: "shell", kind: "native", args: []string{"/bin/sh", "/app/main.sh"}, hostView: true}, copyTree("shell")},
		{module{name: "gauge", kind: "sandbox"}, nil},
	}
	node := filepath.Join(s.sdk, "node", "node_modules")
	if _, err := os.Stat(filepath.Join(node, "azure-iot-device-mqtt")); err != nil {
		s.leftOut = append(s.leftOut, "javascript: "+s.absent(node, "the npm packages azure-iot-device and azure-iot-device-mqtt"))
	} else {
		list = append(list, candidate{module{name: "javascript", kind: "native", args: []string{"/usr/bin/node", "/app/main.js"}, memory: "256MiB", hostView: true}, func(dir string) error {
			return errors.Join(copyTree("javascript")(dir), copyPackages(node, filepath.Join(dir, "node_modules"), "azure-iot-device", "azure-iot-device-mqtt"))
		}})
	}
	python := filepath.Join(s.sdk, "python")
	if _, err := os.Stat(filepath.Join(python, "azure", "iot", "device")); err != nil {
		s.leftOut = append(s.leftOut, "python: "+s.absent(python, "the package azure-iot-device"))
	} else {
		list = append(list, candidate{module{name: "python", kind: "native", args: []string{"/usr/bin/python3", "-u", "/app/main.py"}, hostView: true, env: []string{"PYTHONPATH=/app/packages", "PYTHONDONTWRITEBYTECODE=1"}}, func(dir string) error {
			return errors.Join(copyTree("python")(dir), os.CopyFS(filepath.Join(dir, "packages"), os.DirFS(python)))
		}})
	}
	for _, c := range list {
		args := []string{"build", "-o", s.bundle(c.name), "--name", c.name, "--version", "1.0.0", "--sequence", "1", "--key", key}
		for _, a := range c.args {
			args = append(args, "--arg", a)
		}
		for _, e := range c.env {
			args = append(args, "--env", e)
		}
		if c.hostView {
			args = append(args, "--host-view")
		}
		if c.fill == nil {
			args = append(args, "--go", "./scripts/demo/modules/"+c.name)
		} else {
			dir := filepath.Join(s.work, "files", c.name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := c.fill(dir); err != nil {
				return fmt.Errorf("files of %s: %w", c.name, err)
			}
			args = append(args, dir)
		}
		if _, err := s.tool(ctx, "sandpiper-bundle", args...); err != nil {
			return err
		}
		s.modules = append(s.modules, c.module)
	}
	for _, left := range s.leftOut {
		s.say("LEFT OUT: %s", left)
	}
	return nil
}

func (s *stage) bundle(name string) string { return filepath.Join(s.work, "bundles", name+".spb") }

func (s *stage) hubDir() string { return filepath.Join(s.work, "hub") }

func (s *stage) hubTool(ctx context.Context, args ...string) ([]byte, error) {
	return s.tool(ctx, "sandpiper-hub", append([]string{"--dir", s.hubDir()}, args...)...)
}

// startHub starts the hub on loopback ports of its own, creates the device, and puts the link that can be cut in front of MQTT.
func (s *stage) startHub(ctx context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	s.hubMQTT, s.hubHTTPS = ports[0], ports[1]
	if s.hub, err = s.spawn("sandpiper-hub", "--dir", s.hubDir(), "serve", "--host", hubHost, "--mqtt", s.hubMQTT, "--https", s.hubHTTPS, "--bundles", filepath.Join(s.work, "bundles")); err != nil {
		return err
	}
	var connection []byte
	if err := until(ctx, 20*time.Second, "the hub answers", func() (bool, error) {
		connection, err = s.hubTool(ctx, "device", "create", device)
		return err == nil, err
	}); err != nil {
		return err
	}
	if s.link, err = newLink(s.hubMQTT); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.work, "connection-string"), connection, 0o600); err != nil {
		return err
	}
	return s.followEvents()
}

func freePorts(n int) ([]string, error) {
	var list []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		list = append(list, l.Addr().String())
	}
	return list, nil
}

// event is what the demo reads of the hub's event log.
type event struct {
	Module     string            `json:"moduleId"`
	System     map[string]string `json:"systemProperties"`
	Properties map[string]string `json:"properties"`
}

func (l *ledger) take(line []byte) {
	var e event
	if json.Unmarshal(line, &e) == nil {
		l.add(e.Module, e.System["$.mid"], e.Properties["phase"])
	}
}

// followEvents counts the hub's events as they are stored.
func (s *stage) followEvents() error {
	s.events = newLedger()
	cmd := exec.Command(filepath.Join(s.bin, "sandpiper-hub"), "--dir", s.hubDir(), "events", "--follow", "--json")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.follow = cmd
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			s.events.take(lines.Bytes())
		}
	}()
	return nil
}

// readEvents reads the hub's event log from its beginning.
func (s *stage) readEvents(ctx context.Context) (*ledger, error) {
	raw, err := s.hubTool(ctx, "events", "--json", "--device", device)
	if err != nil {
		return nil, err
	}
	book := newLedger()
	for line := range bytes.Lines(raw) {
		book.take(line)
	}
	return book, nil
}

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

// absent says why packages are not in folder, and what to do.
func (s *stage) absent(folder, what string) string {
	if _, err := os.Stat(s.sdk); err != nil {
		return what + ": " + s.sdk + " is not there; run `make setup` first"
	}
	return what + ": not in " + folder + "; `make setup` said why when it could not bring them"
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
