package container

import (
	"errors"

	"github.com/opencontainers/cgroups"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Pause stops every process of the sandbox where it is.
func (i *Instance) Pause() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.destroyed:
		return i.err("pause", sandbox.ErrDestroyed)
	case i.over():
		return i.err("pause", sandbox.ErrEnded)
	}
	if err := i.group.Freeze(cgroups.Frozen); err != nil {
		return i.err("pause", errors.Join(oneLine(err), i.group.Freeze(cgroups.Thawed)))
	}
	return nil
}

// Resume lets them go on. It is no error when they were not paused.
func (i *Instance) Resume() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.destroyed {
		return i.err("resume", sandbox.ErrDestroyed)
	}
	return i.thaw()
}

// thaw lets paused processes go on: version 1 of cgroups kills none before.
func (i *Instance) thaw() error {
	if !i.Paused() {
		return nil
	}
	if err := i.group.Freeze(cgroups.Thawed); err != nil {
		return i.err("resume", oneLine(err))
	}
	return nil
}

// Paused tells whether the sandbox is paused.
func (i *Instance) Paused() bool {
	state, err := i.group.GetFreezerState()
	return err == nil && state == cgroups.Frozen
}

var (
	_ sandbox.Pauser = (*Instance)(nil)
	_ sandbox.Dialer = (*Instance)(nil)

	_ sandbox.PacketListener = (*Instance)(nil)
)
