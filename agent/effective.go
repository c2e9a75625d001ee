package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/effective"
)

// probePatience bounds a probe: it takes some tens of milliseconds on a board.
const probePatience = 20 * time.Second

// probeRoom is the memory, in bytes, that a probe needs within the module's limit. It runs in the module's group: with less, the
// kernel might end the module for it.
const probeRoom = 24 << 20

// effective is `sandpiper module inspect --effective`: this binary's probes, run in the module's sandbox.
func (a *Agent) effective(ctx context.Context, module string) (control.Effective, error) {
	seat, err := a.supervisor.Seat(module)
	if err != nil {
		return control.Effective{}, notFound(module, err)
	}
	doc, err := a.probe(ctx, seat, func(ctx context.Context, c sandbox.Command) (sandbox.Exit, error) {
		used, err := a.supervisor.Stats(module)
		if err != nil {
			return sandbox.Exit{}, err
		}
		if err := roomFor(used); err != nil {
			return sandbox.Exit{}, err
		}
		return a.supervisor.Exec(ctx, module, c)
	})
	if err == nil {
		a.drifts(module, doc.Drift)
	}
	return doc, notFound(module, err)
}

// drifts tells the log and the reported twin where a sandbox differs from what was granted, or that it does not any more.
func (a *Agent) drifts(module string, list []effective.Drift) {
	var lines []string
	for _, d := range list {
		lines = append(lines, d.String())
		a.log.Warn("sandbox differs from what was granted", "module", module, "what", d.String())
	}
	a.supervisor.Drifts(module, lines)
}

func roomFor(used sandbox.Stats) error {
	if used.MemoryLimit > 0 && used.Memory+probeRoom > used.MemoryLimit {
		return fmt.Errorf("a probe needs %d MiB within the module's memory limit, and %d of its %d MiB are in use; raise limits.memory to inspect it: %w",
			probeRoom>>20, used.Memory>>20, used.MemoryLimit>>20, control.ErrRefused)
	}
	return nil
}

// probe runs the probes by a func that runs a program inside, and compares.
func (a *Agent) probe(ctx context.Context, seat supervisor.Seat, exec func(context.Context, sandbox.Command) (sandbox.Exit, error)) (control.Effective, error) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	doc := control.Effective{Module: seat.Module.Name, Drift: []effective.Drift{}}
	var out, said bytes.Buffer
	exit, err := exec(ctx, sandbox.Command{
		Args: []string{toolPath, "probe"}, Env: []string{"GOMAXPROCS=1", "GODEBUG=madvdontneed=1"}, User: userOf(seat), Stdout: &out, Stderr: &said,
	})
	if err != nil {
		return doc, fmt.Errorf("probe: %w", err)
	}
	if exit.Code != 0 {
		return doc, fmt.Errorf("probe: it ended with code %d: %s", exit.Code, strings.TrimSpace(said.String()))
	}
	if doc.Findings, err = effective.Parse(&out); err != nil {
		return doc, fmt.Errorf("probe: %w", err)
	}
	doc.Drift = append(doc.Drift, a.grants(seat).Drift(doc.Findings)...)
	return doc, nil
}

// grants are what a module was given on purpose.
func (a *Agent) grants(seat supervisor.Seat) effective.Grants {
	m := seat.Module
	f := a.runtime.Probe()
	g := effective.Grants{
		HostNetwork: m.Settings.Network == deployment.HostNetwork,
		Network:     m.Settings.Network == deployment.BridgeNetwork,
		Memory:      f.Memory, Pids: f.Pids, Seccomp: f.Seccomp,
		Groups: f.Cgroup != "" && m.Settings.Network != deployment.HostNetwork,
	}
	for _, name := range m.Settings.Permissions {
		g.Permissions = append(g.Permissions, permittedProbes[name]...)
	}
	if m.Settings.Writable > 0 {
		g.Writable = append(g.Writable, "/")
		g.Permissions = append(g.Permissions, "write to the root", "write to /usr", "write to /etc", "write to its image")
	}
	for _, node := range a.halNodes(m) {
		g.Devices = append(g.Devices, cmp.Or(node.Target, node.Path))
	}
	if m.Settings.Data > 0 {
		g.Writable = append(g.Writable, "/data")
	}
	for _, v := range m.Settings.Create.Volumes {
		if !v.ReadOnly {
			g.Writable = append(g.Writable, v.Target)
		}
	}
	g.Writable = append(g.Writable, seat.Image.Volumes...)
	return g
}

// errDrift refuses a module whose sandbox is not what it should be.
var errDrift = errors.New("its sandbox lets it do more or less than it was granted, and modules.strict is on")

// holdToGrants probes a module that has not begun. What differs is logged and reported; with modules.strict it is refused.
func (a *Agent) holdToGrants(ctx context.Context, s supervisor.Seat, i sandbox.Instance) error {
	runner, ok := i.(sandbox.Execer)
	if !ok {
		return nil
	}
	doc, err := a.probe(ctx, s, func(ctx context.Context, c sandbox.Command) (sandbox.Exit, error) {
		used, err := i.Stats()
		if err != nil {
			return sandbox.Exit{}, err
		}
		if err := roomFor(used); err != nil {
			return sandbox.Exit{}, err
		}
		return runner.Exec(ctx, c)
	})
	if err != nil {
		return fmt.Errorf("modules.strict: %w", err)
	}
	a.drifts(s.Module.Name, doc.Drift)
	if len(doc.Drift) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errDrift, doc.Drift[0])
}
