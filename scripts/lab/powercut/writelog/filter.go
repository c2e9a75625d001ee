package writelog

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Trace puts the filter on this process, all its threads and all that they start which hands every system call that the
// recorder must see to the process's tracer. It cannot be taken off.
func Trace() error {
	return filter(watched, unix.SECCOMP_RET_TRACE)
}

// IgnoreFlushes makes this process one that does not sync: fsync and fdatasync are answered with success and do nothing.
// It is the control of every power-cut run. It cannot be taken off.
func IgnoreFlushes() error {
	return filter([]uint32{unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC, unix.SYS_SYNCFS},
		unix.SECCOMP_RET_ERRNO)
}

// filter applies an action to the calls of a list, on all threads.
func filter(calls []uint32, action uint32) error {
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the number of the call
	for _, nr := range calls {
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("put on seccomp filter: %w", errno)
	}
	return nil
}
