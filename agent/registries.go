package agent

import (
	"fmt"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox/image"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// Registry says what is to be known about a registry of OCI images, or about a part of one. For each question the longest name that fits
// counts.
type Registry struct {
	Name      string   `toml:"name"`       // host[:port][/path] that images' names begin with
	PlainHTTP bool     `toml:"plain_http"` // it speaks http without TLS; then anybody on the way can see what is pulled, and credentials
	TrustedCA string   `toml:"trusted_ca"` // PEM file that replaces the system's roots for it and its mirrors
	Mirrors   []string `toml:"mirrors"`    // host[:port][/path] asked first; what follows the name follows there too
	Keys      []string `toml:"keys"`       // PEM files of public keys, one of which must have signed with cosign; none = no signature is asked for
}

// registryProblems tells what is wrong with the section.
func registryProblems(list []Registry, bad func(key, format string, args ...any)) {
	seen := map[string]bool{}
	for i, r := range list {
		switch {
		case r.Name == "":
			bad("registries.name", "entry %d has none; want host[:port][/path]", i+1)
		case strings.Contains(r.Name, "://") || strings.ContainsAny(r.Name, " @"):
			bad("registries.name", "%q is not host[:port][/path]", r.Name)
		case seen[r.Name]:
			bad("registries.name", "%q is there twice", r.Name)
		case r.PlainHTTP && strings.Contains(r.Name, "/"):
			bad("registries.plain_http", "%q is a part of a registry; give the host an entry of its own", r.Name)
		}
		seen[r.Name] = true
		for _, m := range r.Mirrors {
			if m == "" || strings.Contains(m, "://") || strings.ContainsAny(m, " @") {
				bad("registries.mirrors", "%q is not host[:port][/path]", m)
			}
		}
	}
}

// registries turns the configuration into what the image store asks for.
func (a *Agent) registries() (list []oci.Registry, policies []image.Policy, err error) {
	for _, r := range a.cfg.Registries {
		reg := oci.Registry{Prefix: r.Name, Plain: r.PlainHTTP, Mirrors: r.Mirrors}
		if r.TrustedCA != "" {
			roots, err := rootsFrom(r.TrustedCA)
			if err != nil {
				return nil, nil, err
			}
			reg.HTTP = oci.HTTPClient(roots)
		}
		list = append(list, reg)
		policy := image.Policy{Prefix: r.Name}
		for _, file := range r.Keys {
			raw, err := readSmall(file, 64<<10)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: registries.keys: %w", ErrConfig, err)
			}
			key, err := oci.ParseKey(file, raw)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: registries.keys: %w", ErrConfig, err)
			}
			policy.Keys = append(policy.Keys, key)
		}
		policies = append(policies, policy)
	}
	return list, policies, nil
}

// logins are the registryCredentials of the deployment as it stands in the twin.
func (a *Agent) logins() []oci.Login {
	now := a.twins.Snapshot(a.edgeAgent())
	if !now.Known {
		return nil
	}
	wanted, err := deployment.ParseAgent(now.Desired)
	if err != nil {
		return nil // it is not the one whose images are fetched
	}
	var list []oci.Login
	for _, r := range wanted.Runtime.Registries {
		list = append(list, oci.Login{Address: strings.TrimSuffix(strings.TrimPrefix(r.Address, "https://"), "/"), User: r.Username, Password: oci.Password(r.Password)})
	}
	return list
}
