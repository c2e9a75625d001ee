package image

import (
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Machine is what a bundle's platform is compared with.
type Machine struct {
	Arch    []string // Go's names; the first is the kernel's own
	Variant int      // of 32-bit ARM: 5, 6 or 7
	Kernel  [2]int   // major, minor
}

// ThisMachine asks the kernel. A 64-bit ARM kernel runs 32-bit modules only if it has the support compiled in, of which the
// only proof at hand is that this agent itself is 32-bit.
func ThisMachine() Machine {
	m := Machine{Arch: []string{runtime.GOARCH}, Variant: 7}
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return m
	}
	machine := unix.ByteSliceToString(name.Machine[:])
	switch {
	case machine == "aarch64" && runtime.GOARCH == "arm":
		m.Arch = []string{"arm64", "arm"}
	case strings.HasPrefix(machine, "armv6"):
		m.Variant = 6
	case strings.HasPrefix(machine, "armv5"):
		m.Variant = 5
	}
	m.Kernel = parseKernel(unix.ByteSliceToString(name.Release[:]))
	return m
}

// parseKernel reads the first two numbers of a release such as "6.1.0-18-arm64".
func parseKernel(release string) [2]int {
	major, rest, _ := strings.Cut(release, ".")
	minor := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	a, _ := strconv.Atoi(major) // 0 when it is no number: then every lowest kernel is refused
	b, _ := strconv.Atoi(minor)
	return [2]int{a, b}
}

// runs says why a bundle for p cannot run here, or nil.
func (m Machine) runs(p bundle.Platform) error {
	if p.Arch != bundle.AnyArch {
		fits := false
		for _, arch := range m.Arch {
			fits = fits || arch == p.Arch
		}
		if !fits {
			return bundle.Reject(bundle.ErrArch, "the bundle is for %s, this machine is %s: build it with --arch %s", p.Arch, m.Arch[0], m.Arch[0])
		}
		if v := variant(p); p.Arch == "arm" && v > m.Variant {
			return bundle.Reject(bundle.ErrArch, "the bundle is for ARMv%d, this machine is ARMv%d: build it with --variant v%d", v, m.Variant, m.Variant)
		}
	}
	if p.Kernel != "" {
		if want := parseKernel(p.Kernel); m.Kernel[0] < want[0] || (m.Kernel[0] == want[0] && m.Kernel[1] < want[1]) {
			return bundle.Reject(bundle.ErrKernel, "the bundle needs Linux %s, this is %d.%d: update the system", p.Kernel, m.Kernel[0], m.Kernel[1])
		}
	}
	return nil
}

// variant is the number of an ARM variant; a bundle that names none is for v7, as everywhere.
func variant(p bundle.Platform) int {
	n, err := strconv.Atoi(strings.TrimPrefix(p.Variant, "v"))
	if err != nil {
		return 7
	}
	return n
}
