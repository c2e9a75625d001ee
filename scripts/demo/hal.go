package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tank is what the device's owner writes: a level sensor, the pump's relay, a contact that shows what the pump does, and a door.
const tank = `
[hal]
backend = "sim"

[[hal.sensor]]
name = "level"
source = {iio = "ads1115", attr = "voltage0"}
unit = "%"
range = [0, 100]
sim = {wave = "sine", min = 20, max = 80, period = "20s"}
allow = ["plant"]

[[hal.line]]
name = "pump"
chip = "pinctrl-bcm2711"
line = "GPIO17"
direction = "out"
safe = 0
max_on = "30m"
allow = ["valve"]

[[hal.line]]
name = "pump-runs"
chip = "pinctrl-bcm2711"
line = "GPIO18"
direction = "in"
sim = {wire = "pump"}
allow = ["plant"]

[[hal.line]]
name = "door"
chip = "pinctrl-bcm2711"
line = "GPIO27"
direction = "in"
bias = "pull-up"
allow = ["*"]
`

// playHal is `make demo-hal`: a simulated tank with a module of type hal, which has no code, and a shell module that drives the pump and
// is killed. Everything that is said of it comes from the hub's own event log.
func (s *stage) playHal(ctx context.Context) error {
	s.config = tank
	if err := s.step("bundle of the shell module built and signed", func() error { return s.buildValve(ctx) }); err != nil {
		return err
	}
	if err := s.step("hub started, device created", func() error { return s.startHub(ctx) }); err != nil {
		return err
	}
	if err := s.step("agent started on a simulated board", func() error { return s.startAgent(ctx) }); err != nil {
		return err
	}
	for _, act := range []struct {
		what, waits string
		do          func() error
	}{
		{"deployed: the tank's level arrives at the hub, and no code read it", `"n":"level"`, func() error { return s.deployTank(ctx) }},
		{"the shell module drives the pump: its contact closes", `"n":"pump-runs","v":1`, nil},
		{"somebody opens the door: the edge arrives, with the kernel's sequence", `"n":"door","v":1`, func() error {
			_, err := s.sandpiper(ctx, "hal", "sim", "set", "door", "1")
			return err
		}},
		{"the shell module is killed with SIGKILL: the pump is safe, and its contact opens", `"n":"pump-runs","v":0`, func() error { return s.killModule(ctx, "valve") }},
	} {
		if err := s.step(act.what, func() error {
			if act.do != nil {
				if err := act.do(); err != nil {
					return err
				}
			}
			return s.untilEvent(ctx, act.waits)
		}); err != nil {
			return err
		}
	}
	log, err := s.sandpiper(ctx, "hal", "log")
	if err != nil {
		return err
	}
	if !strings.Contains(string(log), "module ended: safe") {
		return fmt.Errorf("the record says nothing of the safe pump:\n%s", log)
	}
	s.say("what the device recorded:")
	fmt.Print(string(log))
	fmt.Println("tank: level, pump, door and the safe pump are in the hub's event log")
	return nil
}

func (s *stage) buildValve(ctx context.Context) error {
	key := filepath.Join(s.work, "release.key")
	if _, err := s.tool(ctx, "sandpiper-bundle", "keygen", "-o", key); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.work, "bundles"), 0o755); err != nil {
		return err
	}
	_, err := s.tool(ctx, "sandpiper-bundle", "build", "-o", s.bundle("valve"), "--name", "valve", "--version", "1.0.0", "--sequence", "1", "--key", key,
		"--arg", "/bin/sh", "--arg", "/app/main.sh", "--host-view", filepath.Join(s.source, "valve"))
	return err
}

func (s *stage) deployTank(ctx context.Context) error {
	type o = map[string]any
	system := o{"type": "docker", "status": "running", "restartPolicy": "always", "settings": o{"image": "sandpiper"}}
	raw, err := json.Marshal(o{"modulesContent": o{
		"$edgeAgent": o{"properties.desired": o{"schemaVersion": "1.1", "runtime": o{"type": "docker", "settings": o{}},
			"systemModules": o{"edgeAgent": o{"type": "docker", "settings": o{"image": "sandpiper"}}, "edgeHub": system},
			"modules": o{
				"plant": o{"type": "hal", "status": "running", "restartPolicy": "always", "settings": o{"hal": []string{"level", "pump-runs", "door"}, "publish": []o{
					{"read": []string{"level"}, "every": "500ms", "deadband": 1, "output": "climate"},
					{"watch": "pump-runs", "output": "events"}, {"watch": "door", "output": "events"},
				}}},
				"valve": o{"type": "native", "status": "running", "restartPolicy": "never", "settings": o{"image": "file://" + s.bundle("valve"), "hal": []string{"pump:rw"}}},
			}}},
		"$edgeHub": o{"properties.desired": o{"schemaVersion": "1.1", "routes": o{"up": "FROM /messages/* INTO $upstream"},
			"storeAndForwardConfiguration": o{"timeToLiveSecs": 7200}}},
	}})
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

// untilEvent waits until the hub's event log holds a text.
func (s *stage) untilEvent(ctx context.Context, text string) error {
	return until(ctx, 60*time.Second, "an event with "+text, func() (bool, error) {
		raw, err := s.hubTool(ctx, "events", "--json", "--device", device)
		raw = bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte(" "), nil), []byte("\n"), nil)
		return bytes.Contains(raw, []byte(text)), err
	})
}

func (s *stage) killModule(ctx context.Context, name string) error {
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	for _, m := range st.Modules {
		if m.Name == name && m.Pid != 0 {
			return syscall.Kill(m.Pid, syscall.SIGKILL)
		}
	}
	return errors.New("module " + name + " does not run")
}
