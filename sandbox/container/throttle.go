package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// throttle limits the bandwidth of the disks that a sandbox's mounts and image lie on.
func throttle(r *cgroups.Resources, s sandbox.Spec) {
	paths := []string{s.Root.Image}
	for _, m := range s.Mounts {
		paths = append(paths, m.Source)
	}
	var seen []uint64
	for _, path := range paths {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			continue // its mount says so
		}
		disk, ok := diskOf(uint64(st.Dev)) //nolint:unconvert // narrower on other platforms
		if !ok || slices.Contains(seen, disk) {
			continue
		}
		seen = append(seen, disk)
		d := cgroups.NewThrottleDevice(int64(unix.Major(disk)), int64(unix.Minor(disk)), uint64(s.Limits.IO))
		r.BlkioThrottleReadBpsDevice = append(r.BlkioThrottleReadBpsDevice, d)
		r.BlkioThrottleWriteBpsDevice = append(r.BlkioThrottleWriteBpsDevice, d)
	}
}

// diskOf is the whole disk behind a block device; false for what is none, such as a
// tmpfs.
func diskOf(dev uint64) (disk uint64, ok bool) {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir += "/.."
	}
	// Not joined: dir is a link, and the disk lies above what it leads to.
	raw, err := os.ReadFile(dir + "/dev")
	if err != nil {
		return 0, false
	}
	major, minor, _ := strings.Cut(strings.TrimSpace(string(raw)), ":")
	a, err := strconv.ParseUint(major, 10, 32)
	if err != nil {
		return 0, false
	}
	b, err := strconv.ParseUint(minor, 10, 32)
	return unix.Mkdev(uint32(a), uint32(b)), err == nil
}

// unthrottled is r without these limits; false when it has none.
func unthrottled(r *cgroups.Resources) (*cgroups.Resources, bool) {
	if len(r.BlkioThrottleReadBpsDevice) == 0 {
		return r, false
	}
	without := *r
	without.BlkioThrottleReadBpsDevice, without.BlkioThrottleWriteBpsDevice = nil, nil
	return &without, true
}

// throttleKills tells whether a limit of bandwidth may end the kernel itself: seen on Linux 6.1 for ARMv7. What it looks like: a group's first
// time slice begins at tick 0; a counter of 32 bits stands before it in the first five minutes, and for half of all time later, so that
// the slice ends before it begins, which throtl_trim_slice takes for a bug ("kernel BUG at block/blk-throttle.c").
func throttleKills() bool {
	var uts unix.Utsname
	return unix.Uname(&uts) == nil && tickOf32Bits(unix.ByteSliceToString(uts.Machine[:]))
}

// tickOf32Bits reads a machine's name as uname has it. A kernel of 64 bits names itself so to a program of 32 bits too.
func tickOf32Bits(machine string) bool {
	return strings.HasPrefix(machine, "armv") && machine != "armv8l" || len(machine) == 4 && machine[0] == 'i' && machine[2:] == "86"
}
