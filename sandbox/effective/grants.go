package effective

import (
	"fmt"
	"slices"
	"strings"
)

// Grants is what a module was given on purpose, beyond what every module has.
type Grants struct {
	HostNetwork bool     // it is in the host's network namespace
	Network     bool     // it has an interface of its own besides loopback
	Memory      bool     // a memory limit was asked for, and this kernel keeps it
	Pids        bool     // this kernel limits processes
	Seccomp     bool     // this kernel filters calls
	Groups      bool     // the sandbox shows its own groups
	Devices     []string // device nodes, as paths inside
	Writable    []string // writable mounts, as paths inside
	Permissions []string // probes by name that the device's owner permits to it
}

// Drift is a finding that differs from the grant.
type Drift struct {
	Probe  string `json:"probe"`
	Wanted bool   `json:"wanted"` // it should work
	Detail string `json:"detail"`
}

// maxDetail is how much of a detail a Drift keeps, in bytes: it goes into records and reports, and a module may have had a hand in it.
const maxDetail = 256

// String is one line for an operator.
func (d Drift) String() string {
	if d.Wanted {
		return fmt.Sprintf("it cannot %s (%s), and should", d.Probe, d.Detail)
	}
	return fmt.Sprintf("it can %s (%s), and was not granted that", d.Probe, d.Detail)
}

// basics work in every sandbox.
var basics = []string{"open a TCP socket", "open a local socket", "list interfaces", "write to /tmp", "write to /dev/shm"}

// Drift lists where findings differ from the grants.
func (g Grants) Drift(findings []Finding) []Drift {
	var all []Drift
	for _, f := range findings {
		if slices.Contains(g.Permissions, f.Probe) || g.indifferent(f.Probe) {
			continue
		}
		wanted := slices.Contains(basics, f.Probe)
		switch f.Probe {
		case probeNodes:
			f.Allowed, f.Detail = beyond(f, g.Devices)
		case probeWritable:
			f.Allowed, f.Detail = beyond(f, g.Writable)
		}
		if f.Allowed != wanted {
			detail := strings.ToValidUTF8(f.Detail[:min(len(f.Detail), maxDetail)], "")
			all = append(all, Drift{Probe: f.Probe, Wanted: wanted, Detail: detail})
		}
	}
	return all
}

// indifferent are the probes that say nothing about a sandbox with these grants.
func (g Grants) indifferent(probe string) bool {
	switch probe {
	case "see other interfaces than loopback":
		return g.HostNetwork || g.Network
	case "bind a port below 1024": // the namespace's own affair
		return true
	case "use memory without bound":
		return !g.Memory || !g.Groups
	case "make processes without bound":
		return !g.Pids || !g.Groups
	case "call the kernel unfiltered":
		return !g.Seccomp
	}
	return false
}

// beyond leaves of a finding that names places those that were not granted.
func beyond(f Finding, granted []string) (bool, string) {
	if !f.Allowed {
		return false, f.Detail
	}
	var rest []string
	for name := range strings.FieldsSeq(f.Detail) {
		if !slices.Contains(granted, name) {
			rest = append(rest, name)
		}
	}
	return len(rest) > 0, strings.Join(rest, " ")
}
