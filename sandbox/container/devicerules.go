package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"golang.org/x/sys/unix"
)

// The library's own way to set device rules brings a reader of ELF files and an emulator of the kernel's list, 0.25 MB of the binary. Ours
// knows one shape of rules: everything is refused but what is listed.

// setDeviceList brings a group of cgroup v1 to what r says. Nothing is written when it is so already: the list is emptied first, and a
// running module would be refused everything for that moment. Source: Documentation/admin-guide/cgroup-v1/devices.rst.
func setDeviceList(path string, r *cgroups.Resources) error {
	if r.SkipDevices {
		return nil
	}
	lines, err := listOf(r.Devices)
	if err != nil {
		return err
	}
	if now, err := deviceList(path); err != nil || slices.Equal(now, slices.Sorted(slices.Values(lines))) {
		return err
	}
	if err := cgroups.WriteFile(path, "devices.deny", "a"); err != nil {
		return err
	}
	for _, line := range lines {
		if err := cgroups.WriteFile(path, "devices.allow", line); err != nil {
			return err
		}
	}
	return nil
}

// listOf writes rules as the kernel lists them.
func listOf(rules []*devices.Rule) ([]string, error) {
	var lines []string
	for i, r := range rules {
		if (i == 0) == r.Allow || i > 0 && r.Type == devices.WildcardDevice {
			return nil, errors.New("device rules that do not refuse everything first and allow the rest one by one")
		}
		if r.Allow {
			lines = append(lines, fmt.Sprintf("%c %s:%s %s", r.Type, number(r.Major), number(r.Minor), r.Permissions))
		}
	}
	return lines, nil
}

func number(n int64) string {
	if n == devices.Wildcard {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

// deviceList is what a group lets its processes use, sorted.
func deviceList(path string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(path, "devices.list"))
	if err != nil {
		return nil, err
	}
	return slices.Sorted(strings.SplitSeq(strings.TrimSpace(string(raw)), "\n")), nil
}

// setDeviceFilter gives a group of cgroup v2 the program that answers as r says, and only then takes away those that it had: a module that
// runs is never without one.
func setDeviceFilter(path string, r *cgroups.Resources) (err error) {
	if r.SkipDevices {
		return nil
	}
	program, err := filterOf(r.Devices)
	if err != nil {
		return err
	}
	dir, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(dir) }()
	old, err := filtersOf(dir)
	if err != nil {
		return err
	}
	fd, err := loadFilter(program)
	if errors.Is(err, unix.EPERM) { // before Linux 5.11 programs count as locked memory
		fd, err = unlocked(func() (int, error) { return loadFilter(program) })
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := attachFilter(dir, fd); err != nil {
		return err
	}
	for _, id := range old {
		if err := detachFilter(dir, id); err != nil {
			return err
		}
	}
	return nil
}

// unlocked calls act without a bound on locked memory. The bound is the process's and comes back: modules would inherit it.
func unlocked(act func() (int, error)) (int, error) {
	var before unix.Rlimit
	open := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &open, &before); err != nil {
		return -1, err
	}
	defer func() { _ = unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &before, nil) }()
	return act()
}
