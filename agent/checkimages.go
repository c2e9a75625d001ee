package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/checkup"
	"github.com/sandpiper-edge/sandpiper/sandbox/image"
)

// checkImages tries out how images are mounted here, in a folder of its own beside them.
func (c Config) checkImages(_ context.Context, say func(checkup.Level, string, string)) {
	dir := filepath.Join(c.StateDir, "images")
	ways, err := image.Probe(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		say(checkup.Unknown, fmt.Sprintf("there is no %s yet, in which mounting one could be tried out", dir), "start the agent once")
		return
	case errors.Is(err, os.ErrPermission):
		say(checkup.Unknown, "mounting one is tried out by root only", "run this as root")
		return
	case err != nil:
		what, do, _ := strings.Cut(err.Error(), ": ")
		say(checkup.Bad, "none can be mounted: "+what, do)
		return
	}
	how := map[string]string{"file": "the kernel reads an image's file itself", "loop": "through a loop device"}[ways.Backing]
	if ways.Verity == nil {
		say(checkup.Well, fmt.Sprintf("mounted read-only, %s; fs-verity guards each from its first mount on", how), "")
		return
	}
	say(checkup.Well, fmt.Sprintf("mounted read-only, %s; each is read whole at each mount, since %v", how, ways.Verity), "")
}
