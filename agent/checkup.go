package agent

import (
	"context"
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/checkup"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// Checkup asks every part of a device configured by cfg how it is, and hands out what it finds. more are areas of the caller's, asked last.
// It needs no agent and disturbs none.
func Checkup(ctx context.Context, cfg Config, more []checkup.Area, found func(checkup.Finding)) {
	bad := func(what string, err error, do string) {
		found(checkup.Finding{Area: "configuration", Level: checkup.Bad, What: fmt.Sprintf("%s: %v", what, err), Do: do})
	}
	c := checkup.Config{
		StateDir: cfg.StateDir, RunDir: cfg.RunDir, MinFree: int64(cfg.Store.MinFree), MQTT: cfg.Upstream.MQTTAddress, HTTPS: cfg.Upstream.HTTPSAddress,
		Kernel: KernelLacks(), More: append(more, checkup.Area{Name: "images", Look: cfg.checkImages}, checkup.Area{Name: "pins", Look: cfg.checkPins}),
	}
	fine := true
	dev, err := cfg.identity()
	if err != nil {
		fine = false
		bad("the device's credential", err, "give the connection string of this device, or its certificate and key")
	} else {
		c.Hub = dev.hub
		c.Certificate = dev.pair
	}
	if c.Roots, err = rootsFrom(cfg.Upstream.TrustedCA); err != nil {
		fine = false
		bad("upstream.trusted_ca", err, "name a PEM file of certificates, or remove the key")
	}
	keys, err := cfg.signers()
	if err != nil {
		fine = false
		bad("bundles.trusted_keys", err, "name files that sandpiper-bundle keygen wrote")
	}
	c.Signers = len(keys)
	if fine {
		who := "standalone"
		if c.Hub != "" {
			who = dev.id + " at " + c.Hub
		}
		found(checkup.Finding{Area: "configuration", Level: checkup.Well, What: who})
	}
	checkup.Run(ctx, c, found)
}

// KernelLacks is what sandboxes miss in this kernel, one line each with what follows from it and what to do.
func KernelLacks() []string { return container.Probe().Degraded }
