package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// hosting is what the supervisor asks of the agent around an instance: identity, environment, doors.
type hosting struct{ a *Agent }

// Spec makes the module's identity and says how its sandbox is made.
func (h hosting) Spec(ctx context.Context, s supervisor.Seat) (sandbox.Spec, error) {
	a, m := h.a, s.Module
	identity, err := a.identities.Ensure(ctx, m.Name)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("identity: %w", err)
	}
	a.identitiesChanged()
	if m.Type == deployment.Hal {
		return a.pinSpec(m)
	}
	root, err := a.mount(ctx, s.Image.Digest)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("mount image: %w", err)
	}
	dir, err := a.doors.prepareDir(m.Name)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("module directory: %w", err)
	}
	stop, err := sandbox.ParseSignal(cmp.Or(m.Settings.Create.StopSignal, s.Image.Stop))
	if err != nil {
		return sandbox.Spec{}, err
	}
	if err := a.grantHal(m); err != nil {
		return sandbox.Spec{}, fmt.Errorf("grant pins and sensors: %w", err)
	}
	limits := m.Settings.Limits
	spec := sandbox.Spec{
		ID:       m.Name,
		Args:     arguments(m, s.Image),
		Env:      a.environ(m, s.Image, identity.Generation),
		Cwd:      cwdOf(s),
		User:     userOf(s),
		Hostname: cmp.Or(m.Settings.Create.Hostname, m.Name),
		Root:     sandbox.Root{Kind: rootKind(m.Type), Image: root, Writable: m.Settings.Writable},
		Mounts:   []sandbox.Mount{{Source: dir, Target: insideDir}},
		Hosts:    []sandbox.HostEntry{{Addr: gatewayAddr(m, s.IDBase), Names: []string{a.cfg.Device.Gateway}}},
		IDBase:   s.IDBase,
		Limits: sandbox.Limits{
			Memory: cmp.Or(limits.Memory, int64(a.cfg.Modules.Memory)), Swap: limits.Swap, Pids: cmp.Or(limits.Pids, a.cfg.Modules.Pids),
			CPU: cmp.Or(limits.CPU, int64(a.cfg.Modules.CPU*1000)), Files: uint64(limits.Files), Tmp: limits.Tmp, IO: cmp.Or(limits.IO, int64(a.cfg.Modules.IO)),
		},
		LogPath:    s.Log,
		ErrPath:    s.ErrLog,
		StopSignal: stop,

		Permissions: permissions(m),
	}
	spec.Devices = a.halNodes(m)
	switch m.Settings.Network {
	case deployment.NoNetwork:
	case deployment.HostNetwork:
		spec.Network = sandbox.Host
	case deployment.BridgeNetwork:
		spec.Network = sandbox.Bridge
		peers, err := a.bridgeHosts(ctx, m)
		if err != nil {
			return sandbox.Spec{}, fmt.Errorf("network: %w", err)
		}
		spec.Hosts = append(spec.Hosts, peers...)
	}
	for _, host := range m.Settings.Create.Hosts {
		spec.Hosts = append(spec.Hosts, sandbox.HostEntry{Addr: host.Addr, Names: []string{host.Name}})
	}
	if spec.Mounts, err = a.addData(spec.Mounts, s); err != nil {
		return sandbox.Spec{}, fmt.Errorf("data directory: %w", err)
	}
	if self, err := os.Executable(); err == nil {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: self, Target: toolPath})
	}
	return spec, nil
}

// userOf is whom the module's program runs as, "" = the sandbox's default.
func userOf(s supervisor.Seat) string { return cmp.Or(s.Module.Settings.User, s.Image.User) }

// cwdOf is where it begins, "" = the sandbox's root.
func cwdOf(s supervisor.Seat) string { return cmp.Or(s.Module.Settings.Create.WorkingDir, s.Image.Cwd) }

// Command gives a further program what the module's own has around it.
func (h hosting) Command(s supervisor.Seat, args []string) sandbox.Command {
	identity, _ := h.a.identities.Module(s.Module.Name)
	return sandbox.Command{Args: args, Env: h.a.environ(s.Module, s.Image, identity.Generation), Cwd: cwdOf(s), User: userOf(s)}
}

// toolPath is where a module without an SDK finds this binary.
const toolPath = "/run/sandpiper-tool"

// arguments are the program and its arguments: the deployment's, else the image's.
func arguments(m deployment.Module, img supervisor.Image) []string {
	switch c := m.Settings.Create; {
	case len(m.Settings.Args) > 0:
		return m.Settings.Args
	case len(c.Entrypoint) > 0:
		return append(slices.Clone(c.Entrypoint), c.Cmd...)
	case len(c.Cmd) > 0: // the image's entry point stays
		return append(slices.Clone(img.Args[:min(img.Entry, len(img.Args))]), c.Cmd...)
	}
	return img.Args
}

// environ is what a module finds in its environment: the image's, the manifest's, and what the device SDKs look for, which
// nobody can override.
func (a *Agent) environ(m deployment.Module, img supervisor.Image, generation string) []string {
	env := map[string]string{}
	for _, entry := range img.Env {
		key, value, _ := strings.Cut(entry, "=")
		env[key] = value
	}
	maps.Copy(env, m.Environ())
	if env["RuntimeLogLevel"] == "" {
		env["RuntimeLogLevel"] = "Information"
	}
	for _, forbidden := range []string{"EdgeHubConnectionString", "IotHubConnectionString"} {
		delete(env, forbidden) // in three SDKs it would override everything below
	}
	hub := a.dev.hub
	if hub == "" {
		hub = standaloneHub
	}
	maps.Copy(env, map[string]string{
		"IOTEDGE_WORKLOADURI":        "unix://" + insideDir + "/" + socketName,
		"IOTEDGE_AUTHSCHEME":         "sasToken",
		"IOTEDGE_MODULEGENERATIONID": generation,
		"IOTEDGE_IOTHUBHOSTNAME":     hub,
		"IOTEDGE_GATEWAYHOSTNAME":    a.cfg.Device.Gateway,
		"IOTEDGE_DEVICEID":           a.dev.id,
		"IOTEDGE_MODULEID":           m.Name,
		"IOTEDGE_APIVERSION":         workloadVersion,
		"NODE_EXTRA_CA_CERTS":        insideDir + "/" + caName,
		"SANDPIPER":                  toolPath,
	})
	list := make([]string, 0, len(env))
	for _, key := range slices.Sorted(maps.Keys(env)) {
		list = append(list, key+"="+env[key])
	}
	return list
}

// workloadVersion is what IOTEDGE_APIVERSION says; Python sends it back.
const workloadVersion = "2022-08-03"

func rootKind(t deployment.Type) sandbox.RootKind {
	if t == deployment.Native {
		return sandbox.HostView
	}
	return sandbox.Image
}

// gatewayAddr is where a module finds the agent: its own loopback, or on the host's network an address of the loopback range that is
// this module's alone.
func gatewayAddr(m deployment.Module, idBase uint32) netip.Addr {
	if m.Settings.Network != deployment.HostNetwork {
		return netip.MustParseAddr(loopback)
	}
	n := idBase / sandbox.IDCount
	return netip.AddrFrom4([4]byte{127, 77, byte(n >> 8), byte(n)})
}

// Open opens the module's doors.
func (h hosting) Open(ctx context.Context, s supervisor.Seat, i sandbox.Instance) error {
	id := iothub.ID{Device: h.a.dev.id, Module: s.Module.Name}
	if err := h.a.grantHal(s.Module); err != nil {
		return fmt.Errorf("grant pins and sensors: %w", err)
	}
	if s.Module.Type == deployment.Hal {
		return nil // the agent itself: there is no door to open
	}
	if err := h.a.join(s, i); err != nil {
		return err
	}
	if w, ok := i.(interface{ Waiting() bool }); ok && h.a.cfg.Modules.Strict && w.Waiting() {
		if err := h.a.holdToGrants(ctx, s, i); err != nil {
			return err
		}
	}
	h.a.halEnds(ctx, s.Module, i)
	return h.a.doors.serve(ctx, id, i, gatewayAddr(s.Module, s.IDBase).String(), s.IDBase, s.Module.Settings.Network == deployment.BridgeNetwork)
}

// Shut closes them, and makes safe what the module drove.
func (h hosting) Shut(module string) {
	h.a.doors.shut(module)
	h.a.leaveBridge(module)
	h.a.halGone(module)
}

// Removed takes everything from a module that is no longer part of the deployment but its data and what it still has to say to
// the hub.
func (h hosting) Removed(ctx context.Context, module string) error {
	a := h.a
	id := iothub.ID{Device: a.dev.id, Module: module}
	err := errors.Join(a.identities.Remove(ctx, module), a.broker.Drop(ctx, id))
	a.identitiesChanged()
	if a.hal != nil {
		err = errors.Join(err, a.hal.Grant(module, nil))
	}
	return errors.Join(err, a.releaseData(module), os.RemoveAll(a.doors.moduleDir(module)))
}

// machine is the architecture as uname has it.
func machine() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	case "arm":
		return "armv7l"
	}
	return runtime.GOARCH
}
