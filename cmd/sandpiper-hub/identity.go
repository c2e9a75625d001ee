package main

import (
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// with opens the client of the hub in --dir.
func (s *shared) with(do func(*hub.Owner) error) error {
	c, err := hub.OpenOwner(s.dir)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// parseID reads a device, or a device and a module, as typed.
func parseID(args ...string) (iothub.ID, error) {
	module := ""
	if len(args) > 1 {
		module = args[1]
	}
	id, err := iothub.NewID(args[0], module)
	if err == nil && len(args) > 1 && module == "" {
		err = fmt.Errorf("module of %s is empty", id)
	}
	if err != nil {
		return iothub.ID{}, console.Usage(err)
	}
	return id, nil
}
