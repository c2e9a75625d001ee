package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/network"
)

// Bridge is the network of modules that ask for one of their own.
type Bridge struct {
	Range   netip.Prefix `toml:"range"`   // addresses of the modules, IPv4; default 172.29.77.0/24
	Publish []Ports      `toml:"publish"` // ports of the host that deployments may give to modules; default none
}

// Ports is a port of the host, or several in a row.
type Ports struct{ First, Last uint16 }

// UnmarshalText reads "8080" or "9000-9010".
func (p *Ports) UnmarshalText(text []byte) error {
	first, last, several := strings.Cut(string(text), "-")
	if !several {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil || a == 0 || b < a {
		return fmt.Errorf("%q is not a port; want \"8080\" or \"9000-9010\"", text)
	}
	p.First, p.Last = uint16(a), uint16(b)
	return nil
}

func (b Bridge) problems(bad func(key, format string, args ...any)) {
	if b.Range.IsValid() && (!b.Range.Addr().Is4() || b.Range.Bits() > 30 || b.Range.Bits() < 8) {
		bad("network.range", "%s is not a range of IPv4 addresses from /8 to /30", b.Range)
	}
}

// bridges is the network of modules, and who is on it.
type bridges struct {
	*network.Network

	lacks func() []string // what the kernel has no means for; asked once

	mu     sync.Mutex // guards joined
	joined map[string]sandbox.Instance
}

func (a *Agent) buildBridge(context.Context) error {
	n, err := network.New(network.Config{RunDir: filepath.Clean(a.cfg.RunDir), Range: a.cfg.Network.Range, Logger: a.log})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	a.bridge = &bridges{Network: n, lacks: sync.OnceValue(network.Missing), joined: map[string]sandbox.Instance{}}
	return nil
}

// keepBridge says what the kernel lacks, and clears what a dead run left, once the modules that run are known: nobody waits for it.
func (a *Agent) keepBridge(ctx context.Context) error {
	select {
	case <-a.supervisor.Ready():
	case <-ctx.Done():
		return nil
	}
	for _, line := range a.bridge.lacks() {
		a.log.Info("no module can be on the bridge network", "what", line)
	}
	runs := map[string]bool{}
	for _, m := range a.supervisor.Modules() {
		runs[m.Wanted.Name] = m.Pid != 0
	}
	if err := a.bridge.Sweep(func(module string) bool { return runs[module] }); err != nil {
		a.log.Warn("what a dead run left of the network is still there", "err", err)
	}
	return nil
}

// bridgeable tells why a module cannot have the network it asks for.
func (a *Agent) bridgeable(m deployment.Module) error {
	if m.Settings.Network != deployment.BridgeNetwork {
		return nil
	}
	refuse := func(member, why, want string) error {
		return &deployment.Error{Path: "modules." + m.Name + ".settings." + member, Why: why, Want: want, Code: deployment.CodeFailed}
	}
	if lacks := a.bridge.lacks(); len(lacks) > 0 {
		return refuse("network", "this kernel has no bridge network: "+strings.Join(lacks, "; "), "none or host")
	}
	for _, p := range m.Settings.Ports {
		if !a.mayPublish(p.Host) {
			return refuse("ports", fmt.Sprintf("port %d of the host is not for modules", p.Host), "a port that network.publish of the device's configuration lists")
		}
	}
	return nil
}

func (a *Agent) mayPublish(port uint16) bool {
	for _, p := range a.cfg.Network.Publish {
		if p.First <= port && port <= p.Last {
			return true
		}
	}
	return false
}

// memberAddr is a module's address: that of the number of its id range.
func (a *Agent) memberAddr(idBase uint32) (netip.Addr, error) {
	return a.bridge.Addr((idBase - a.cfg.Modules.IDBase) / sandbox.IDCount)
}

// bridgeHosts are the names of the modules that a module may reach.
func (a *Agent) bridgeHosts(ctx context.Context, m deployment.Module) ([]sandbox.HostEntry, error) {
	var list []sandbox.HostEntry
	for _, name := range m.Settings.Reach {
		base, ok, err := a.supervisor.IDBase(ctx, name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue // no module of the deployment
		}
		addr, err := a.memberAddr(base)
		if err != nil {
			return nil, err
		}
		list = append(list, sandbox.HostEntry{Addr: addr, Names: []string{name}})
	}
	return list, nil
}

// join puts a module on the network, if it asks for one.
func (a *Agent) join(s supervisor.Seat, i sandbox.Instance) error {
	if s.Module.Settings.Network != deployment.BridgeNetwork {
		return nil
	}
	addr, err := a.memberAddr(s.IDBase)
	if err != nil {
		return err
	}
	pid := i.Pid()
	if pid == 0 {
		return sandbox.ErrEnded
	}
	m := network.Member{Addr: addr, Reach: s.Module.Settings.Reach}
	for _, p := range s.Module.Settings.Ports {
		m.Ports = append(m.Ports, network.Port(p))
	}
	if err := a.bridge.Join(s.Module.Name, m, pid); err != nil {
		return err
	}
	a.bridge.mu.Lock()
	defer a.bridge.mu.Unlock()
	a.bridge.joined[s.Module.Name] = i
	return nil
}

// leaveBridge takes a module whose program has ended off the network. One that runs on, as its agent leaves, stays.
func (a *Agent) leaveBridge(module string) {
	a.bridge.mu.Lock()
	i := a.bridge.joined[module]
	ended := i != nil && i.Pid() == 0
	if ended {
		delete(a.bridge.joined, module)
	}
	a.bridge.mu.Unlock()
	if !ended {
		return
	}
	if err := a.bridge.Leave(module); err != nil {
		a.log.Warn("module not taken off the network", "module", module, "err", err)
	}
}

// names answers a module's questions for names until ctx ends.
func (a *Agent) names(ctx context.Context, i sandbox.Instance) (func() error, error) {
	p, ok := i.(sandbox.PacketListener)
	if !ok {
		return nil, errors.New("this runtime has no networks")
	}
	const addr = loopback + ":53"
	datagrams, err := p.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	streams, err := i.Listen("tcp", addr)
	if err != nil {
		return nil, errors.Join(err, datagrams.Close())
	}
	return func() error { return network.Resolver{Logger: a.log}.Serve(ctx, datagrams, streams) }, nil
}
