package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Right is what a shared access policy allows. Rights are a set.
type Right uint8

// The rights of the service.
const (
	RightRegistryRead Right = 1 << iota
	RightRegistryWrite
	RightServiceConnect
)

// OwnerPolicy may do everything. Its connection string is the operator's.
const OwnerPolicy = "iothubowner"

// defaultPolicies are made at first start, as the service makes them. "device" is left out: no device shares a key here.
var defaultPolicies = map[string]Right{
	OwnerPolicy:         RightRegistryRead | RightRegistryWrite | RightServiceConnect,
	"service":           RightServiceConnect,
	"registryRead":      RightRegistryRead,
	"registryReadWrite": RightRegistryRead | RightRegistryWrite,
}

// policy is a shared access policy with its keys.
type policy struct {
	rights    Right
	primary   iothub.Key
	secondary iothub.Key
}

// policyDoc is a policy as stored.
type policyDoc struct {
	V         int    `json:"v"`
	Rights    Right  `json:"rights"`
	Primary   string `json:"primary"`
	Secondary string `json:"secondary"`
}

// loadPolicies reads the policies and makes the default ones that are missing.
func loadPolicies(ctx context.Context, docs *state.Docs) (map[string]policy, error) {
	policies := make(map[string]policy, len(defaultPolicies))
	for name, rights := range defaultPolicies {
		p, err := loadPolicy(ctx, docs, name, rights)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", name, err)
		}
		policies[name] = p
	}
	return policies, nil
}

func loadPolicy(ctx context.Context, docs *state.Docs, name string, rights Right) (policy, error) {
	key := state.Key{Kind: state.KindPolicy, Name: name}
	doc, err := docs.Get(ctx, key)
	if err != nil {
		return policy{}, err
	}
	if !doc.Exists() {
		made := policyDoc{V: 1, Rights: rights, Primary: iothub.NewKey().Text(), Secondary: iothub.NewKey().Text()}
		if doc.Value, err = json.Marshal(made); err != nil {
			return policy{}, err
		}
		if _, err := docs.Change(ctx, state.Put{Key: key, Expect: doc.Revision, Value: doc.Value}); err != nil {
			return policy{}, err
		}
	}
	var stored policyDoc
	if err := decodeDoc(key, doc.Value, &stored); err != nil {
		return policy{}, err
	}
	p := policy{rights: stored.Rights}
	if p.primary, err = iothub.ParseKey(stored.Primary); err != nil {
		return policy{}, err
	}
	if p.secondary, err = iothub.ParseKey(stored.Secondary); err != nil {
		return policy{}, err
	}
	return p, nil
}

// ConnectionFile is where the owner's connection string is written, readable by the hub's user only.
func ConnectionFile(dir string) string { return filepath.Join(dir, OwnerPolicy+".connection") }

// CAFile is the certificate that clients of the hub must trust.
func CAFile(dir string) string { return filepath.Join(dir, caFile) }

// writeConnectionFile puts the owner's connection string where local commands find it.
func writeConnectionFile(dir, host string, owner policy) error {
	text := "HostName=" + host + ";SharedAccessKeyName=" + OwnerPolicy + ";SharedAccessKey=" + owner.primary.Text() + "\n"
	return writeFile(ConnectionFile(dir), []byte(text), 0o600)
}
