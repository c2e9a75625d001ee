package container

import (
	"slices"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// A limit of bandwidth has stopped such a kernel: with it goes the whole machine, so that only the name is tested.
func TestKernelsOf32BitsAreKnownByName(t *testing.T) {
	t.Parallel()
	for machine, want := range map[string]bool{
		"armv6l": true, "armv7l": true, "i686": true, "i386": true,
		"aarch64": false, "armv8l": false, "x86_64": false, "riscv64": false, "": false,
	} {
		if got := tickOf32Bits(machine); got != want {
			t.Errorf("%q: got %v, want %v", machine, got, want)
		}
	}
}

func TestWhatALimitOfBandwidthLeavesOutIsSaid(t *testing.T) {
	t.Parallel()
	for cgroup, want := range map[string]bool{"v1": true, "hybrid": true, "v2": false} {
		lines := degraded(sandbox.Features{Cgroup: cgroup, IO: true})
		said := slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "not what the kernel writes for a module later") })
		if said != want {
			t.Errorf("cgroup %s: said %v, want %v", cgroup, said, want)
		}
	}
}
