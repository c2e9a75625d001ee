package container

import (
	"fmt"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
)

// membership is a process in its group.
type membership struct {
	group cgroups.Manager
	err   error
}

// join makes the group, puts the process in, and sets its limits. All of it is
// done before the script is played: on cgroup v1 a group denies every device for
// a moment before it allows the first, and the process opens /dev/null.
func join(c *cgroups.Cgroup, pid int) membership {
	group, err := manager.New(c)
	if err != nil {
		return membership{nil, fmt.Errorf("cgroup: %w", err)}
	}
	if err = group.Apply(pid); err == nil {
		err = group.Set(c.Resources)
	}
	if err != nil {
		err = fmt.Errorf("cgroup: %w", err)
	}
	return membership{group, err}
}

func (m membership) leave() error {
	if m.group == nil {
		return nil
	}
	return m.group.Destroy()
}
