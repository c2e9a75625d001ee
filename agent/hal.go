package agent

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/hal/linux"
)

// buildHal makes the server of pins and sensors that the configuration names; a device without a [hal] section has none.
func (a *Agent) buildHal() error {
	resources, err := a.cfg.Hal.Resources()
	if err != nil {
		return fmt.Errorf("%w: hal.%w", ErrConfig, err)
	}
	if len(resources) == 0 {
		return nil
	}
	var backend hal.Backend
	if a.cfg.Hal.Backend == "sim" {
		a.sim = hal.NewSim()
		backend = a.sim
	} else if backend, err = linux.NewBoard(linux.Config{Logger: a.log}); err != nil {
		return err
	}
	a.hal, err = hal.New(hal.ServerConfig{Resources: resources, Backend: backend, Logger: a.log})
	return err
}

// honourable refuses, by name and before anything is stopped, what a module asks of the board and does not get.
func (a *Agent) honourable(m deployment.Module) error {
	if len(m.Settings.Hal) == 0 {
		return nil
	}
	refuse := func(why, want string) error {
		return &deployment.Error{Path: "modules." + m.Name + ".settings.hal", Why: why, Want: want, Code: deployment.CodeFailed}
	}
	if a.hal == nil {
		return refuse("this agent grants no pins, buses or sensors", "a module without hal")
	}
	grants, err := hal.ParseGrants(m.Settings.Hal)
	if err != nil {
		return refuse(err.Error(), "grants as the device's configuration allows them")
	}
	if err := a.hal.Check(m.Name, grants); err != nil {
		return refuse(err.Error(), "grants as the device's configuration allows them")
	}
	return nil
}

// grantHal gives a module what its settings ask for, before it starts or when it is found running.
func (a *Agent) grantHal(m deployment.Module) error {
	if a.hal == nil {
		return nil
	}
	grants, err := hal.ParseGrants(m.Settings.Hal)
	if err != nil {
		return err
	}
	return a.hal.Grant(m.Name, grants)
}

// halGone makes safe what a module drove whose process has ended.
func (a *Agent) halGone(module string) {
	if a.hal != nil {
		a.hal.Gone(module, "module ended")
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
