//go:build seccomp

package container

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// compile makes the kernel's form of a filter, once for all sandboxes: libseccomp
// takes longer for it than everything else in a start together.
func compile(c *configs.Seccomp) ([]unix.SockFilter, error) {
	refused := libseccomp.ActErrno.SetReturnCode(int16(unix.EPERM))
	f, err := libseccomp.NewFilter(refused)
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	defer f.Release()
	var arches []libseccomp.ScmpArch
	for _, name := range c.Architectures {
		arch, err := libseccomp.GetArchFromString(name)
		if err != nil {
			return nil, fmt.Errorf("seccomp filter: %w", err)
		}
		if err := f.AddArch(arch); err != nil {
			return nil, fmt.Errorf("seccomp filter: %s: %w", name, err)
		}
		arches = append(arches, arch)
	}
	// A tree of comparisons instead of a list: every call of the module passes it.
	if err := f.SetOptimize(2); err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	for _, call := range c.Syscalls {
		if err := addCall(f, call); err != nil {
			return nil, fmt.Errorf("seccomp filter: %s: %w", call.Name, err)
		}
	}
	for _, name := range strings.Fields(watchedCalls) {
		nr, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			continue // a library older than the call refuses it
		}
		if err := f.AddRule(nr, libseccomp.ActNotify); err != nil {
			return nil, fmt.Errorf("seccomp filter: %s: %w", name, err)
		}
	}
	raw, err := export(f)
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	program, err := unknownCalls(c, arches)
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	for ; len(raw) >= 8; raw = raw[8:] { // struct sock_filter
		program = append(program, unix.SockFilter{
			Code: binary.NativeEndian.Uint16(raw), Jt: raw[2], Jf: raw[3], K: binary.NativeEndian.Uint32(raw[4:]),
		})
	}
	return program, nil
}

// export goes through a file: libseccomp before 2.6 writes to nothing else.
func export(f *libseccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "filter")
	defer file.Close()
	if err := f.ExportBPF(file); err != nil {
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(file)
}

func addCall(f *libseccomp.ScmpFilter, call *configs.Syscall) error {
	nr, err := libseccomp.GetSyscallFromName(call.Name)
	if err != nil {
		return nil //nolint:nilerr // a library older than the call refuses it
	}
	action := libseccomp.ActAllow
	if call.Action == configs.Errno {
		action = libseccomp.ActErrno.SetReturnCode(int16(unix.EPERM))
		if call.ErrnoRet != nil {
			action = libseccomp.ActErrno.SetReturnCode(int16(*call.ErrnoRet))
		}
	}
	if len(call.Args) == 0 {
		return f.AddRule(nr, action)
	}
	operators := map[configs.Operator]libseccomp.ScmpCompareOp{
		configs.EqualTo: libseccomp.CompareEqual, configs.MaskEqualTo: libseccomp.CompareMaskedEqual,
	}
	var conditions []libseccomp.ScmpCondition
	for _, a := range call.Args {
		operands := []uint64{a.Value}
		if a.Op == configs.MaskEqualTo {
			operands = append(operands, a.ValueTwo)
		}
		condition, err := libseccomp.MakeCondition(a.Index, operators[a.Op], operands...)
		if err != nil {
			return err
		}
		conditions = append(conditions, condition)
	}
	return f.AddRuleConditional(nr, action, conditions)
}

// auditArches are the kernel's names (linux/audit.h) of those the filter covers.
var auditArches = map[libseccomp.ScmpArch]uint32{
	libseccomp.ArchAMD64: unix.AUDIT_ARCH_X86_64, libseccomp.ArchX86: unix.AUDIT_ARCH_I386,
	libseccomp.ArchARM64: unix.AUDIT_ARCH_AARCH64, libseccomp.ArchARM: unix.AUDIT_ARCH_ARM,
}

// unknownCalls is the beginning of the program: a call newer than the newest one
// the filter names does not exist (ENOSYS), so that a libc falls back to an older
// one instead of giving up at EPERM.
func unknownCalls(c *configs.Seccomp, arches []libseccomp.ScmpArch) ([]unix.SockFilter, error) {
	const (
		load     = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		greater  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
		jump     = unix.BPF_JMP | unix.BPF_JA
		answer   = unix.BPF_RET | unix.BPF_K
		nrAt     = 0 // offsets in struct seccomp_data
		archAt   = 4
		private  = 0x3fffffff // above: another ABI's bit, or the kernel's private calls on ARM
		stepsPer = 6
	)
	program := []unix.SockFilter{{Code: load, K: archAt}}
	for n, arch := range arches {
		audit, ok := auditArches[arch]
		if !ok {
			return nil, fmt.Errorf("architecture %s is unknown", arch)
		}
		last := uint32(0)
		for _, call := range c.Syscalls {
			nr, err := libseccomp.GetSyscallFromNameByArch(call.Name, arch)
			if err == nil && nr > 0 && uint32(nr) < 0xf0000 { // ARM's private calls begin there
				last = max(last, uint32(nr))
			}
		}
		rest := uint32((len(arches) - n - 1) * stepsPer)
		program = append(program,
			unix.SockFilter{Code: equal, K: audit, Jf: stepsPer - 1},
			unix.SockFilter{Code: load, K: nrAt},
			unix.SockFilter{Code: greater, K: newest(arch, private), Jt: 2},
			unix.SockFilter{Code: greater, K: last, Jf: 1},
			unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
			unix.SockFilter{Code: jump, K: rest},
		)
	}
	return program, nil
}

// newest is the number from which on calls are not the architecture's own.
func newest(arch libseccomp.ScmpArch, private uint32) uint32 {
	if arch == libseccomp.ArchARM {
		return 0xeffff
	}
	return private
}
