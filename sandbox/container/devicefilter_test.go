package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"golang.org/x/sys/unix"
)

// question is what the kernel asks a filter.
type question struct {
	kind, access, major, minor uint32
}

// answer runs a program as the kernel's virtual machine would.
func answer(t testing.TB, program []instruction, q question) uint32 {
	t.Helper()
	var reg [11]uint32
	ctx := map[int16]uint32{0: q.kind | q.access<<16, 4: q.major, 8: q.minor}
	for at := 0; at < len(program); at++ {
		i := program[at]
		dst, src := i.regs&15, i.regs>>4
		switch i.code {
		case opLoad:
			reg[dst] = ctx[i.jump]
		case opCopy:
			reg[dst] = reg[src]
		case opAnd:
			reg[dst] &= uint32(i.imm)
		case opShift:
			reg[dst] >>= uint32(i.imm)
		case opMove:
			reg[dst] = uint32(i.imm)
		case opUnlike:
			if reg[dst] != uint32(i.imm) {
				at += int(i.jump)
			}
		case opExit:
			return reg[0]
		default:
			t.Fatalf("instruction %d has the code %#x", at, i.code)
		}
	}
	t.Fatal("the program runs off its end")
	return 0
}

const (
	reading, writing, making = unix.BPF_DEVCG_ACC_READ, unix.BPF_DEVCG_ACC_WRITE, unix.BPF_DEVCG_ACC_MKNOD
	char, block              = unix.BPF_DEVCG_DEV_CHAR, unix.BPF_DEVCG_DEV_BLOCK
)

func TestTheFilterAnswersAsTheRulesSay(t *testing.T) {
	t.Parallel()
	rules := append(commonRules(), &devices.Rule{Type: devices.BlockDevice, Major: 8, Minor: 1, Permissions: "r", Allow: true})
	program, err := filterOf(rules)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		q    question
		want uint32
	}{
		"null is read and written":     {question{char, reading | writing, 1, 3}, 1},
		"null is made by nobody":       {question{char, making, 1, 3}, 0},
		"memory is not read":           {question{char, reading, 1, 1}, 0},
		"kmsg is not written":          {question{char, writing, 1, 11}, 0},
		"any pty of its own":           {question{char, reading | writing, 136, 77}, 1},
		"a disk is read where granted": {question{block, reading, 8, 1}, 1},
		"and not written":              {question{block, reading | writing, 8, 1}, 0},
		"nor its neighbour":            {question{block, reading, 8, 2}, 0},
		"nor the node of the number":   {question{char, reading, 8, 1}, 0},
	} {
		if got := answer(t, program, c.q); got != c.want {
			t.Errorf("%s: got %d, want %d", what, got, c.want)
		}
	}
}

func TestRulesThatAreNotAListOfWhatIsAllowedAreRefused(t *testing.T) {
	t.Parallel()
	all := &devices.Rule{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "rwm"}
	open := *all
	open.Allow = true
	null := &devices.Rule{Type: devices.CharDevice, Major: 1, Minor: 3, Permissions: "rw", Allow: true}
	part := *null
	part.Allow = false
	odd := *null
	odd.Type = devices.FifoDevice
	for name, rules := range map[string][]*devices.Rule{"nothing refused": {null}, "everything allowed": {all, &open}, "a hole": {all, null, &part}} {
		if lines, err := listOf(rules); err == nil {
			t.Errorf("%s passed as %q", name, lines)
		}
	}
	for name, rules := range map[string][]*devices.Rule{"a part refused": {all, &part}, "no kind of node": {all, &odd}} {
		if _, err := filterOf(rules); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}

// FuzzTheFilterAnswersAsAListOfRulesDoes holds the program against the rules read one by one.
func FuzzTheFilterAnswersAsAListOfRulesDoes(f *testing.F) {
	f.Add([]byte{1, 3, 7}, uint8(2), uint8(6), uint8(1), uint8(3))
	f.Add([]byte{1, 255, 2, 8, 0, 9}, uint8(1), uint8(2), uint8(8), uint8(200))
	f.Fuzz(func(t *testing.T, raw []byte, kind, access, major, minor uint8) {
		rules := commonRules()
		for ; len(raw) >= 3 && len(rules) < 100; raw = raw[3:] {
			r := &devices.Rule{Type: devices.CharDevice, Major: int64(raw[0]), Minor: int64(raw[1]), Allow: true}
			if raw[2]&8 != 0 {
				r.Type = devices.BlockDevice
			}
			if raw[1] == 255 {
				r.Minor = devices.Wildcard
			}
			for bit, p := range map[uint8]devices.Permissions{1: "r", 2: "w", 4: "m"} {
				if raw[2]&bit != 0 {
					r.Permissions += p
				}
			}
			rules = append(rules, r)
		}
		q := question{uint32(kind%2 + 1), uint32(access % 8), uint32(major), uint32(minor)}
		want := uint32(0)
		for _, r := range rules[1:] {
			granted := uint32(0)
			for _, p := range r.Permissions {
				granted |= map[rune]uint32{'r': reading, 'w': writing, 'm': making}[p]
			}
			of := map[devices.Type]uint32{devices.CharDevice: char, devices.BlockDevice: block}[r.Type]
			if q.kind == of && int64(q.major) == r.Major && (r.Minor == devices.Wildcard || int64(q.minor) == r.Minor) && q.access&^granted == 0 {
				want = 1
			}
		}
		program, err := filterOf(rules)
		if err != nil {
			t.Fatal(err)
		}
		if got := answer(t, program, q); got != want {
			t.Errorf("%+v: got %d, want %d", q, got, want)
		}
	})
}

// groupOf2 is a group of the kernel's cgroup v2, wherever it is mounted.
func groupOf2(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SANDBOX TESTS DO NOT RUN: they need root for namespaces, mounts and cgroups")
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if !exists(filepath.Join(root, "cgroup.procs")) || !exists(filepath.Join(root, "cgroup.subtree_control")) {
			continue
		}
		dir, err := os.MkdirTemp(root, "sandpiper-test-") //nolint:usetesting // a group is no temporary directory
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		return dir
	}
	t.Skip("this kernel has no cgroup v2 mounted: device filters are not tried")
	return ""
}

func TestTheKernelTakesTheFilterAndKeepsToIt(t *testing.T) {
	t.Parallel()
	dir := groupOf2(t)
	try := func(door *os.File, node string) error {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "exec 3<"+node)
		cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(door.Fd())}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	door, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	if _, err := filtersOf(int(door.Fd())); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("this kernel has no device filters (CONFIG_CGROUP_BPF): %v", err)
	}
	for range 2 { // the second time in place of the first
		if err := setDeviceFilter(dir, &cgroups.Resources{Devices: commonRules()}); err != nil {
			t.Fatal(err)
		}
		if err := try(door, "/dev/zero"); err != nil {
			t.Errorf("what every sandbox has: %v", err)
		}
		if err := try(door, "/dev/kmsg"); err == nil {
			t.Error("the kernel's log was opened")
		}
		if ids, err := filtersOf(int(door.Fd())); err != nil || len(ids) != 1 {
			t.Errorf("got filters %v, %v, want one", ids, err)
		}
	}
}

func TestTheKernelsListIsWhatTheRulesSay(t *testing.T) {
	t.Parallel()
	const root = "/sys/fs/cgroup/devices"
	if os.Geteuid() != 0 {
		t.Skip("SANDBOX TESTS DO NOT RUN: they need root for namespaces, mounts and cgroups")
	}
	if !exists(filepath.Join(root, "devices.list")) {
		t.Skip("this kernel has no devices controller of cgroup v1: lists are not tried")
	}
	dir, err := os.MkdirTemp(root, "sandpiper-test-") //nolint:usetesting // a group is no temporary directory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	for _, rules := range [][]*devices.Rule{commonRules(), append(commonRules(), &devices.Rule{Type: devices.CharDevice, Major: 10, Minor: 200, Permissions: "rw", Allow: true}), commonRules()} {
		if err := setDeviceList(dir, &cgroups.Resources{Devices: rules}); err != nil {
			t.Fatal(err)
		}
		got, err := deviceList(dir)
		if err != nil || len(got) != len(rules)-1 {
			t.Errorf("got %q, %v, want %d lines", got, err, len(rules)-1)
		}
	}
}
