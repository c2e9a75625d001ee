package container

import "testing"

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
