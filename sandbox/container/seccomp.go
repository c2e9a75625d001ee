package container

import (
	"runtime"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// seccompFilter allows the system calls that programs need and refuses all
// others with EPERM; those newer than the newest one it knows with ENOSYS, so
// that a libc falls back. It is stricter than what container engines ship: no
// ptrace, no keys, no io_uring, no NUMA policy, no clock, no namespaces, and
// sockets only of the families below.
//
// Both word sizes of a processor are covered. The 32-bit x86 entry point that
// multiplexes socket calls stays closed for socket(2), since a filter cannot see
// the family behind it: a 32-bit x86 program that knows no other one has no
// network.
func seccompFilter(permissions []sandbox.Permission) *configs.Seccomp {
	f := &configs.Seccomp{DefaultAction: configs.Errno, Architectures: seccompArches[runtime.GOARCH]}
	calls := allowedCalls
	for _, p := range permissions {
		calls += permittedCalls[p]
	}
	for name := range strings.FieldsSeq(calls) {
		f.Syscalls = append(f.Syscalls, &configs.Syscall{Name: name, Action: configs.Allow})
	}
	enosys := uint(unix.ENOSYS)
	f.Syscalls = append(f.Syscalls,
		// New threads and processes, but no new namespace.
		&configs.Syscall{Name: "clone", Action: configs.Allow, Args: []*configs.Arg{
			{Index: 0, Op: configs.MaskEqualTo, Value: cloneNamespaces, ValueTwo: 0},
		}},
		// Its flags lie in memory, out of sight: libc falls back to clone.
		&configs.Syscall{Name: "clone3", Action: configs.Errno, ErrnoRet: &enosys},
	)
	for _, family := range socketFamilies {
		f.Syscalls = append(f.Syscalls, onlyArg("socket", family))
	}
	for _, persona := range personalities {
		f.Syscalls = append(f.Syscalls, onlyArg("personality", persona))
	}
	return f
}

// permittedCalls are those behind each permission.
var permittedCalls = map[sandbox.Permission]string{
	sandbox.Trace:   " ptrace process_vm_readv process_vm_writev kcmp ",
	sandbox.IOUring: " io_uring_setup io_uring_enter io_uring_register ",
}

// onlyArg allows a call when its first argument is this.
func onlyArg(name string, value uint64) *configs.Syscall {
	return &configs.Syscall{Name: name, Action: configs.Allow, Args: []*configs.Arg{
		{Index: 0, Op: configs.EqualTo, Value: value},
	}}
}

// seccompArches are the architectures whose calls the kernel may see besides
// those of this binary: that of the other word size.
var seccompArches = map[string][]string{
	"amd64": {"amd64", "x86"},
	"arm64": {"arm64", "arm"},
	"arm":   {"arm", "arm64"},
	"386":   {"x86", "amd64"},
}

const cloneNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// socketFamilies: the network, the module's own sockets, and the routing tables
// (for lists of interfaces). Not CAN: the kernel asks for no right to open such a
// socket, so network "host" would give away every bus; frames are granted by
// identifier, through the module's own socket.
var socketFamilies = []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// personalities: Linux, its 32-bit form, with and without an old release name,
// and the question which one is set.
var personalities = []uint64{0x0, 0x8, 0x20000, 0x20008, 0xffffffff}

// allowedCalls by subject, over all architectures; a name that one of them lacks
// is skipped there.
const allowedCalls = filesCalls + eventCalls + memoryCalls + processCalls + signalCalls + timeCalls + idCalls + socketCalls + ipcCalls

const filesCalls = `
 access faccessat faccessat2 chdir fchdir getcwd chmod fchmod fchmodat chown chown32 fchown fchown32 fchownat lchown lchown32 umask
 open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 flock ioctl
 read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek readahead
 sendfile sendfile64 splice tee vmsplice copy_file_range
 stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64
 getdents getdents64 mkdir mkdirat rmdir link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 readlink readlinkat
 mknod mknodat truncate truncate64 ftruncate ftruncate64 fallocate
 fadvise64 fadvise64_64 arm_fadvise64_64 sync syncfs fsync fdatasync sync_file_range sync_file_range2 arm_sync_file_range
 utime utimes utimensat utimensat_time64 futimesat
 getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
`

const eventCalls = `
 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
 poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 pipe pipe2 eventfd eventfd2 signalfd signalfd4
 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
 io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
`

const memoryCalls = `
 brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall remap_file_pages
 pkey_alloc pkey_free pkey_mprotect memfd_create memfd_secret membarrier
`

const processCalls = `
 fork vfork execve execveat exit exit_group wait4 waitpid waitid getpid getppid gettid getpgid getpgrp setpgid getsid setsid
 set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area arch_prctl prctl rseq restart_syscall
 futex futex_time64 futex_waitv pidfd_open pidfd_send_signal process_mrelease
 sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler
 sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64
 getpriority setpriority nice ioprio_get ioprio_set getrlimit setrlimit ugetrlimit prlimit64 getrusage times getcpu
 seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
 breakpoint cacheflush set_tls get_tls uname sysinfo getrandom
`

const signalCalls = `
 kill tkill tgkill sigaction sigprocmask sigpending sigsuspend sigreturn sigaltstack signal pause alarm
 rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigreturn rt_sigqueueinfo rt_tgsigqueueinfo
 rt_sigtimedwait rt_sigtimedwait_time64
`

const timeCalls = `
 time gettimeofday clock_getres clock_getres_time64 clock_gettime clock_gettime64 nanosleep clock_nanosleep clock_nanosleep_time64
 getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
`

const idCalls = `
 getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getgroups getgroups32 getresuid getresuid32 getresgid getresgid32
 setuid setuid32 setgid setgid32 setgroups setgroups32 setreuid setreuid32 setregid setregid32
 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 capget capset
`

const socketCalls = `
 socketpair bind connect listen accept accept4 shutdown getsockname getpeername getsockopt setsockopt
 send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
`

const ipcCalls = `
 shmget shmat shmctl shmdt semget semop semctl semtimedop semtimedop_time64 msgget msgsnd msgrcv msgctl ipc
 mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64
`
