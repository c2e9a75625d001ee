package container

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	devices "github.com/opencontainers/cgroups/devices/config"
	"golang.org/x/sys/unix"
)

// A group of cgroup v2 has no list of devices: the kernel asks a program at each open of a node and each mknod, with what kind of node it
// is, what is wanted of it, and its numbers. Source: Documentation/admin-guide/cgroup-v2.rst, "Device controller"; struct
// bpf_cgroup_dev_ctx; Documentation/bpf/standardization/instruction-set.rst.

// instruction is one of the kernel's virtual machine, as it lies in memory.
type instruction struct {
	code uint8
	regs uint8 // destination in the low half, source in the high one
	jump int16 // instructions to skip
	imm  int32
}

// The codes that the filter is made of.
const (
	opLoad   = 0x61 // 32 bits at source + jump, used as an offset
	opCopy   = 0xbc // 32 bits of a register
	opAnd    = 0x54 // with imm
	opShift  = 0x74 // right by imm
	opMove   = 0xb4 // imm
	opUnlike = 0x56 // jump if different from imm
	opExit   = 0x95 // with what is in register 0: 0 refuses
)

// Registers: what the kernel asks about, and one to work with.
const (
	regAnswer, regAsked, regKind, regAccess, regMajor, regMinor, regWork = 0, 1, 2, 3, 4, 5, 6
)

// filterOf is the program that answers as rules say: the last one that fits decides. What none fits is refused.
func filterOf(rules []*devices.Rule) ([]instruction, error) {
	program := []instruction{
		{opLoad, regKind | regAsked<<4, 0, 0}, // the low half is the kind, the high one the access
		{opCopy, regAccess | regKind<<4, 0, 0},
		{opAnd, regKind, 0, 0xffff},
		{opShift, regAccess, 0, 16},
		{opLoad, regMajor | regAsked<<4, 4, 0},
		{opLoad, regMinor | regAsked<<4, 8, 0},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		part, err := ruleFilter(rules[i])
		if err != nil {
			return nil, err
		}
		program = append(program, part...)
		if !slices.ContainsFunc(part, func(i instruction) bool { return i.code == opUnlike }) {
			return program, nil // it fits always, and the kernel refuses a program with a part that is never reached
		}
	}
	return append(program, instruction{opMove, regAnswer, 0, 0}, instruction{opExit, 0, 0, 0}), nil
}

// ruleFilter answers if one rule fits, and falls through if not.
func ruleFilter(r *devices.Rule) ([]instruction, error) {
	var part []instruction
	unlike := func(reg uint8, value int64) { part = append(part, instruction{opUnlike, reg, 0, int32(value)}) }
	switch r.Type {
	case devices.CharDevice:
		unlike(regKind, unix.BPF_DEVCG_DEV_CHAR)
	case devices.BlockDevice:
		unlike(regKind, unix.BPF_DEVCG_DEV_BLOCK)
	case devices.WildcardDevice:
	default:
		return nil, fmt.Errorf("device rule of type %q", r.Type)
	}
	if r.Major != devices.Wildcard {
		unlike(regMajor, r.Major)
	}
	if r.Minor != devices.Wildcard {
		unlike(regMinor, r.Minor)
	}
	access := int32(0)
	for _, p := range r.Permissions {
		switch p {
		case 'r':
			access |= unix.BPF_DEVCG_ACC_READ
		case 'w':
			access |= unix.BPF_DEVCG_ACC_WRITE
		case 'm':
			access |= unix.BPF_DEVCG_ACC_MKNOD
		default:
			return nil, fmt.Errorf("device rule with access %q", r.Permissions)
		}
	}
	answer := int32(0)
	if r.Allow {
		answer = 1
		part = append(part, instruction{opCopy, regWork | regAccess<<4, 0, 0}, instruction{opAnd, regWork, 0, ^access}) // what is wanted beyond it
		unlike(regWork, 0)
	} else if access != unix.BPF_DEVCG_ACC_READ|unix.BPF_DEVCG_ACC_WRITE|unix.BPF_DEVCG_ACC_MKNOD {
		return nil, errors.New("device rule that refuses a part of what can be done")
	}
	part = append(part, instruction{opMove, regAnswer, 0, answer}, instruction{opExit, 0, 0, 0})
	for i := range part {
		if part[i].code == opUnlike {
			part[i].jump = int16(len(part) - i - 1)
		}
	}
	return part, nil
}

// loadFilter gives the program to the kernel, which verifies it. The descriptor is the caller's.
func loadFilter(program []instruction) (int, error) {
	license := []byte("Apache-2.0\x00")
	var pin runtime.Pinner // a number is not a pointer to the runtime: what lay on a stack could have moved before the kernel reads it
	defer pin.Unpin()
	pin.Pin(&program[0])
	pin.Pin(&license[0])
	attr := struct {
		kind, count uint32
		program     uint64
		license     uint64
		rest        [3]uint64 // no log of the verifier, any kernel version, no flags
	}{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program)),
		program: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return -1, fmt.Errorf("load device filter: %w", err)
	}
	return fd, nil
}

// attachFilter puts the program of a descriptor before all devices of the group that dir is open on, beside those that are there already.
func attachFilter(dir, program int) error {
	attr := struct{ target, program, kind, flags uint32 }{uint32(dir), uint32(program), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach device filter: %w", err)
	}
	return nil
}

// filtersOf are the ids of the programs that a group asks about devices.
func filtersOf(dir int) ([]uint32, error) {
	ids := make([]uint32, 64) // the kernel's most
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	attr := struct {
		target, kind, flags, attached uint32
		ids                           uint64
		count, pad                    uint32
	}{target: uint32(dir), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, fmt.Errorf("list device filters: %w", err)
	}
	return ids[:min(int(attr.count), len(ids))], nil
}

// detachFilter takes the program with an id away from a group.
func detachFilter(dir int, id uint32) error {
	byID := struct{ id, next, flags uint32 }{id: id}
	program, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
	if err != nil {
		return fmt.Errorf("open device filter: %w", err)
	}
	defer func() { _ = unix.Close(program) }()
	attr := struct{ target, program, kind uint32 }{uint32(dir), uint32(program), unix.BPF_CGROUP_DEVICE}
	if _, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("detach device filter: %w", err)
	}
	return nil
}

// bpf is bpf(2), once more when the kernel was busy.
func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	for tries := 0; ; tries++ {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
		switch {
		case errno == 0:
			return int(fd), nil
		case errno != unix.EAGAIN && errno != unix.EINTR || tries == 5:
			return -1, errno
		}
	}
}
