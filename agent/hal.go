package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/hal/linux"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// buildHal makes the server of pins and sensors that the configuration names; a device without a [hal] section has none.
func (a *Agent) buildHal(context.Context) error {
	if err := loadColumns(&a.cfg.Hal, time.Now()); err != nil {
		return fmt.Errorf("%w: hal.%w", ErrConfig, err)
	}
	resources, err := a.cfg.Hal.Resources()
	if err != nil {
		return fmt.Errorf("%w: hal.%w", ErrConfig, err)
	}
	if a.keeper, err = inheritedKeeper(time.Duration(a.cfg.Hal.Hold)); err != nil {
		a.log.Warn("outputs do not outlive this agent", "err", err)
	}
	if len(resources) == 0 {
		return a.forgetKept()
	}
	var backend hal.Backend
	if a.cfg.Hal.Backend == "sim" {
		if a.sim, err = simulated(a.cfg.Hal.Replay); err != nil {
			return fmt.Errorf("%w: hal.replay: %w", ErrConfig, err)
		}
		backend = a.sim
	} else {
		board, err := linux.NewBoard(linux.Config{Logger: a.log})
		if err != nil {
			return err
		}
		backend, a.advice = board, adviceOf(board, resources)
	}
	cfg := hal.ServerConfig{Resources: resources, Backend: backend, Hold: time.Duration(a.cfg.Hal.Hold), Logger: a.log}
	if a.keeper != nil && a.sim == nil {
		cfg.Keeper = a.keeper
	}
	a.hal, err = hal.New(cfg)
	return err
}

// simulated is a board that is not there; a recording, if there is one, is played on it.
func simulated(recording string) (*hal.Sim, error) {
	sim := hal.NewSim()
	if recording == "" {
		return sim, nil
	}
	f, err := os.Open(recording)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rec, err := hal.ReadRecording(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", recording, err)
	}
	sim.Play(rec, nil)
	return sim, nil
}

// inheritedKeeper is the warden's side of the outputs; nil for an agent that no warden started.
func inheritedKeeper(hold time.Duration) (*linux.Keeper, error) {
	text := os.Getenv(linux.KeeperVar)
	if text == "" {
		return nil, nil
	}
	if err := os.Unsetenv(linux.KeeperVar); err != nil { // no child of the agent's has the descriptor
		return nil, err
	}
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", linux.KeeperVar, err)
	}
	return linux.NewKeeper(fd, hold)
}

// forgetKept lets go of what an agent with another configuration left, each made safe.
func (a *Agent) forgetKept() error {
	if a.keeper == nil {
		return nil
	}
	list, err := a.keeper.List()
	if err != nil {
		a.log.Warn("outputs of the agent before stay kept", "err", err)
	}
	for _, k := range list {
		if err := errors.Join(unix.Close(k.FD), a.keeper.Drop(k.Key)); err != nil {
			a.log.Warn("output of the agent before stays kept", "name", k.Key, "err", err)
		}
	}
	return nil
}

// runHal serves pins and sensors, and tells the warden meanwhile that this agent lives.
func (a *Agent) runHal(ctx context.Context) error {
	if a.keeper == nil || a.sim != nil {
		return a.hal.Run(ctx)
	}
	beat, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the last output is as it is to stay
	var beats sync.WaitGroup
	beats.Go(func() { a.keeper.Run(beat, a.hal.Heard) })
	err := a.hal.Run(ctx)
	stop()
	beats.Wait()
	return err
}

// leaveHal is for an agent that makes room for its successor: with a warden nothing moves.
func (a *Agent) leaveHal() {
	if a.hal == nil {
		return
	}
	a.leaving.Store(true)
	a.hal.Leave()
}

// honourable refuses, by name and before anything is stopped, what a module asks of the board and does not get.
func (a *Agent) honourable(m deployment.Module) error {
	if err := errors.Join(a.permitted(m), a.bridgeable(m)); err != nil {
		return err
	}
	if len(m.Settings.Hal) == 0 && len(m.Settings.Create.Devices) == 0 && m.Type != deployment.Hal {
		return nil
	}
	refuse := func(why, want string) error {
		return &deployment.Error{Path: "modules." + m.Name + ".settings.hal", Why: why, Want: want, Code: deployment.CodeFailed}
	}
	if a.hal == nil {
		return refuse("this agent grants no pins, buses or sensors", "a module without hal")
	}
	grants, err := a.halGrants(m)
	if err != nil {
		return refuse(err.Error(), "grants as the device's configuration allows them")
	}
	if err := a.hal.Check(m.Name, grants); err != nil {
		return refuse(err.Error(), "grants as the device's configuration allows them")
	}
	if name := unrenewed(m, grants); name != "" {
		return refuse(name+": deadman is for a program that renews its lease, and a module of type hal has none", "a grant without deadman")
	}
	if _, err := parsePublish(m.Settings.Publish, grants); err != nil {
		return &deployment.Error{Path: "modules." + m.Name + ".settings.publish", Why: err.Error(), Want: "entries that read or watch what is granted", Code: deployment.CodeFailed}
	}
	return nil
}

// unrenewed names the first grant of a module without a program whose lease nobody would renew; "" = there is none.
func unrenewed(m deployment.Module, grants []hal.Grant) string {
	for i := range grants {
		if m.Type == deployment.Hal && grants[i].Deadman != 0 {
			return grants[i].Name
		}
	}
	return ""
}

// grantHal gives a module what its settings ask for, before it starts or when it is found running.
func (a *Agent) grantHal(m deployment.Module) error {
	if a.hal == nil {
		return nil
	}
	grants, err := a.halGrants(m)
	if err != nil {
		return err
	}
	return a.hal.Grant(m.Name, grants)
}

// halGrants is what a module asks for: its settings.hal, and the device nodes of its createOptions by the names that the owner gave them.
func (a *Agent) halGrants(m deployment.Module) ([]hal.Grant, error) {
	grants, err := hal.ParseGrants(m.Settings.Hal)
	if err != nil {
		return nil, err
	}
	for _, d := range m.Settings.Create.Devices {
		g, known := a.hal.NodeGrant(d.Path, d.Write)
		if !known {
			return nil, fmt.Errorf("createOptions.HostConfig.Devices: %s is no [[hal.device]] of the device's configuration", d.Path)
		}
		asked := false
		for i := range grants {
			if o := &grants[i]; o.Name == g.Name {
				o.Read, o.Write, asked = true, o.Write || g.Write, true
			}
		}
		if !asked {
			grants = append(grants, g)
		}
	}
	return grants, nil
}

// halNodes are the raw device nodes that a module's sandbox gets.
func (a *Agent) halNodes(m deployment.Module) (list []sandbox.Device) {
	if a.hal == nil {
		return nil
	}
	for _, n := range a.hal.Nodes(m.Name) {
		d := sandbox.Device{Path: n.Path, Access: "r"}
		if n.Write {
			d.Access = "rw"
		}
		for _, asked := range m.Settings.Create.Devices {
			if asked.Path == n.Path {
				d.Target = asked.Target
			}
		}
		list = append(list, d)
	}
	return list
}

// halGone makes safe what a module drove whose process has ended, or which its doors were shut for.
func (a *Agent) halGone(module string) {
	if a.hal == nil || a.leaving.Load() { // the module runs on, and what it drives stays as it is
		return
	}
	why := "module ended"
	if a.supervisor.Asked(module) && !a.stopping.Load() {
		why = hal.Replaced
	}
	a.hal.Gone(module, why)
}

// halEnds makes safe what a module drives the moment its program ends: before that is written down and its doors are shut, which takes
// as long as the disk does. What it asked for last and was not yet done is undone when the doors are shut.
func (a *Agent) halEnds(ctx context.Context, m deployment.Module, i sandbox.Instance) {
	if a.hal == nil || len(m.Settings.Hal) == 0 {
		return
	}
	a.pins.group.Go(func() {
		if _, err := i.Wait(ctx); err == nil {
			a.halGone(m.Name)
		}
	})
}

// halUnwell makes safe what a module drives that says it is not well.
func (a *Agent) halUnwell(module string) {
	if a.hal != nil {
		a.hal.Gone(module, "module unhealthy")
	}
}

// halProblem checks the [hal] section, as problems does the others.
func (c Config) halProblem() (key, why string, bad bool) {
	_, err := c.Hal.Resources()
	var fault *hal.ConfigError
	if errors.As(err, &fault) {
		return "hal." + fault.Key, fault.Why, true
	}
	return "", "", false
}

// halLine finds the line of an entry of an array of tables, as "hal.line.2.safe"; false when key is none.
func halLine(raw []byte, key []string) (int, bool) {
	if len(key) < 3 || key[0] != "hal" {
		return 0, false
	}
	nth, err := strconv.Atoi(key[2])
	if err != nil {
		return 0, false
	}
	header, at := "[[hal."+key[1]+"]]", 0
	for i, line := range bytes.Split(raw, []byte("\n")) {
		text := strings.TrimSpace(string(line))
		switch {
		case strings.HasPrefix(text, header):
			nth--
			if nth == -1 {
				at = i + 1
			}
		case strings.HasPrefix(text, "[") && at > 0 && strings.HasSuffix(strings.TrimSpace(strings.SplitN(text, "#", 2)[0]), "]"):
			return at, true
		}
		name, _, assigned := strings.Cut(text, "=")
		if at > 0 && nth == -1 && assigned && len(key) > 3 && strings.TrimSpace(name) == key[3] {
			return i + 1, true
		}
	}
	return at, at > 0
}
