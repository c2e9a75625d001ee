package agent

import (
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox/effective"
)

func TestAWallIsOpenedByTwoKeys(t *testing.T) {
	t.Parallel()
	const some = "modules.probe.settings."
	for claim, c := range map[string]struct {
		device   Permissions
		settings deployment.Settings
		want     string // path of the refusal; empty = none
	}{
		"neither":                       {Permissions{}, deployment.Settings{}, ""},
		"the device alone opens none":   {Permissions{Trace: []string{"*"}}, deployment.Settings{}, ""},
		"the manifest alone is refused": {Permissions{}, deployment.Settings{Permissions: []string{"trace"}}, some + "permissions"},
		"both":                          {Permissions{Trace: []string{"pro"}}, deployment.Settings{Permissions: []string{"trace"}}, ""},
		"another module's key":          {Permissions{Trace: []string{"debug"}}, deployment.Settings{Permissions: []string{"trace"}}, some + "permissions"},
		"another wall's key":            {Permissions{IOUring: []string{"*"}}, deployment.Settings{Permissions: []string{"trace"}}, some + "permissions"},
		"an empty prefix is no key":     {Permissions{Trace: []string{""}}, deployment.Settings{Permissions: []string{"trace"}}, some + "permissions"},
		"the host's network":            {Permissions{HostNetwork: []string{"*"}}, deployment.Settings{Network: deployment.HostNetwork}, ""},
		"the host's network refused":    {Permissions{}, deployment.Settings{Network: deployment.HostNetwork}, some + "network"},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			a := &Agent{cfg: Config{Permissions: c.device}}
			err := a.permitted(deployment.Module{Name: "probe", Settings: c.settings})
			got := ""
			if refused, ok := err.(*deployment.Error); ok { //nolint:errorlint // it is returned as it is
				got = refused.Path
			}
			if got != c.want || (err == nil) != (c.want == "") {
				t.Errorf("got %v, want a refusal of %q", err, c.want)
			}
		})
	}
}

func TestPermittedProbesExist(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, n := range effective.Names() {
		names[n] = true
	}
	for permission, probes := range permittedProbes {
		for _, p := range probes {
			if !names[p] {
				t.Errorf("%s: there is no probe %q", permission, p)
			}
		}
	}
}
