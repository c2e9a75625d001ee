package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// verb is `sandpiper module start|stop|restart|pause|resume`.
func (a *Agent) verb(ctx context.Context, verb, module string) error {
	switch verb {
	case "pause":
		return notFound(module, a.supervisor.Pause(module))
	case "resume":
		return notFound(module, a.supervisor.Resume(module))
	}
	act := map[string]func(context.Context, string) error{
		"start": a.supervisor.Start, "stop": a.supervisor.Stop, "restart": a.supervisor.Restart,
	}[verb]
	return notFound(module, act(ctx, module))
}

func notFound(module string, err error) error {
	switch {
	case errors.Is(err, supervisor.ErrNoModule):
		return fmt.Errorf("module %q is not in the deployment: %w", module, control.ErrNotFound)
	case errors.Is(err, supervisor.ErrNotRunning):
		return fmt.Errorf("module %q does not run; `sandpiper module why %s` says why: %w", module, module, control.ErrRefused)
	}
	return err
}

// paused is the status of a module that an operator holds; the hub knows no word for it.
const paused = "paused"

func moduleStatus(m supervisor.Module) string {
	if m.Paused {
		return paused
	}
	return m.Status
}

// offends notes which module ran into a bound.
func (a *Agent) offends(what supervisor.Offence) func(iothub.ID) {
	return func(id iothub.ID) {
		if id.Module != "" {
			a.supervisor.Offend(id.Module, what, 1)
		}
	}
}

// why is `sandpiper module why`.
func (a *Agent) why(_ context.Context, module string) (control.Reason, error) {
	for _, m := range a.supervisor.Modules() {
		if m.Wanted.Name == module {
			why := strings.Join(append([]string{m.Reason(time.Now())}, m.Offences...), "; it ")
			return control.Reason{Module: module, Status: moduleStatus(m), Why: why, Next: m.Next}, nil
		}
	}
	desired := a.twins.Snapshot(iothub.ID{Device: a.dev.id, Module: deployment.EdgeAgent}).Desired
	wanted, err := deployment.ParseAgent(desired)
	if err != nil || wanted.Find(module) == nil {
		return control.Reason{}, notFound(module, supervisor.ErrNoModule)
	}
	version, result := a.supervisor.Deployment()
	return control.Reason{Module: module, Status: deployment.RuntimeUnknown, Why: fmt.Sprintf("deployment %d wants it and is not applied: %s", version, result.Description)}, nil
}

// stats is `sandpiper module stats`.
func (a *Agent) stats(_ context.Context, module string) ([]control.Usage, error) {
	list := []control.Usage{}
	for _, m := range a.supervisor.Modules() {
		if module != "" && m.Wanted.Name != module {
			continue
		}
		s, err := a.supervisor.Stats(m.Wanted.Name)
		if module == "" && (errors.Is(err, supervisor.ErrNotRunning) || errors.Is(err, sandbox.ErrDestroyed)) {
			continue
		}
		if err != nil {
			return nil, notFound(m.Wanted.Name, err)
		}
		list = append(list, control.Usage{
			Module: m.Wanted.Name, CPUSeconds: s.CPU.Seconds(), Throttled: s.Throttled.Seconds(), Memory: s.Memory, MemoryPeak: s.MemoryPeak,
			MemoryLimit: s.MemoryLimit, Pids: s.Pids, PidsLimit: s.PidsLimit, PidsRefused: s.PidsRefused, OOMKills: s.OOMKills, Read: s.Read,
			Written: s.Written, CPUPressure: s.CPUPressure, MemoryPressure: s.MemoryPressure, IOPressure: s.IOPressure,
		})
	}
	if module != "" && len(list) == 0 {
		return nil, notFound(module, supervisor.ErrNoModule)
	}
	return list, nil
}

// exec is `sandpiper module exec`: a program with the module's environment, behind the module's walls.
func (a *Agent) exec(ctx context.Context, module string, want control.ExecRequest, with control.Streams) (int, error) {
	seat, err := a.supervisor.Seat(module)
	if err != nil {
		return 0, notFound(module, err)
	}
	c := hosting{a}.Command(seat, want.Args)
	c.Env, c.Cwd, c.User = append(c.Env, want.Env...), cmp.Or(want.Cwd, c.Cwd), cmp.Or(want.User, c.User)
	c.Stdin, c.Stdout, c.Stderr = with.In, with.Out, with.Err
	if t := want.Terminal; t != nil {
		sizes := make(chan sandbox.Size)
		c.Terminal = &sandbox.Terminal{Size: sandbox.Size(*t), Resize: sizes}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			for {
				select {
				case size := <-with.Resize:
					select {
					case sizes <- sandbox.Size(size):
					case <-ctx.Done():
						return
					}
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	exit, err := a.supervisor.Exec(ctx, module, c)
	return exit.Code, notFound(module, err)
}
