package agent

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// hostNetwork is the permission that a module needs for network: host.
const hostNetwork = "host_network"

// permitted refuses, by name and before anything is stopped, a wall that the manifest wants open and this device keeps shut.
func (a *Agent) permitted(m deployment.Module) error {
	refuse := func(path, name string) error {
		return &deployment.Error{
			Path: "modules." + m.Name + ".settings." + path, Why: fmt.Sprintf("this device does not permit %s to this module", name),
			Want: fmt.Sprintf("permissions.%s in the device's configuration with this module's name, or a module without it", name), Code: deployment.CodeFailed,
		}
	}
	if m.Settings.Network == deployment.HostNetwork && !a.cfg.Permissions.allow(hostNetwork, m.Name) {
		return refuse("network", hostNetwork)
	}
	for _, name := range m.Settings.Permissions {
		if !a.cfg.Permissions.allow(name, m.Name) {
			return refuse("permissions", name)
		}
	}
	return nil
}

// allow tells whether the device's owner gave its key.
func (p Permissions) allow(name, module string) bool {
	prefixes := map[string][]string{hostNetwork: p.HostNetwork, string(sandbox.Trace): p.Trace, string(sandbox.IOUring): p.IOUring}[name]
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		return prefix == "*" || prefix != "" && strings.HasPrefix(module, prefix)
	})
}

// permissions are a module's, as its sandbox has them.
func permissions(m deployment.Module) []sandbox.Permission {
	var all []sandbox.Permission
	for _, name := range m.Settings.Permissions {
		all = append(all, sandbox.Permission(name))
	}
	return all
}

// permittedProbes are what a permission lets a module do, in the words of the probes.
var permittedProbes = map[string][]string{
	string(sandbox.Trace):   {"trace a process", "read another process's memory", "write another process's memory", "compare processes"},
	string(sandbox.IOUring): {"queue calls in a ring"},
}
