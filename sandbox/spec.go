package sandbox

import (
	"net/netip"
	"syscall"
)

// Spec describes one sandbox. Everything not asked for here is refused to the
// module: it has no capability, no new privileges, no device beyond null, zero,
// full, random, urandom and tty, and no writable file beyond its tmpfs
// directories and its writable mounts.
type Spec struct {
	// ID names the instance on this device: letters, digits and "_+.-", at most
	// 64 bytes, starting with a letter or a digit. A name already in use is
	// [ErrExists].
	ID string
	// Args is the program and its arguments. A program without a slash is looked
	// up in the PATH of Env.
	Args []string
	// Env holds KEY=value entries. Nothing of the agent's environment is added,
	// except PATH and HOME when they are missing.
	Env []string
	// Cwd is the working directory, absolute. Default: "/" of an Image root,
	// "/app" of a HostView.
	Cwd string
	// User is "uid", "uid:gid", "name" or "name:group", as seen inside; names are
	// looked up in the root's own /etc/passwd and /etc/group. Default "0:0",
	// which is uid IDBase on the host and holds no capability.
	User string
	// Hostname is what the module sees as its host name. Default: ID.
	Hostname string
	// Root is what the module sees as "/". It is always read-only.
	Root Root
	// Mounts are binds of host files and directories, in order.
	Mounts []Mount
	// Hosts are the lines of /etc/hosts after those of localhost and Hostname.
	Hosts []HostEntry
	// IDBase is the first of the 65536 host uids and gids that are the module's
	// 0 to 65535. Two sandboxes must not share a range, and a module keeps its
	// range for good, because its data belongs to it. At least [MinIDBase].
	IDBase uint32
	// Network says which network namespace the module is in.
	Network Network
	// Limits bound what the module may use.
	Limits Limits
	// Devices are the host's device nodes the module is granted.
	Devices []Device
	// Permissions open a wall on purpose.
	Permissions []Permission
	// LogPath is a FIFO that takes the module's standard output and error. It is
	// made if missing; read it with [OpenLog]. In the directory "log" of the
	// runtime directory the warden keeps it open, so that nothing printed is lost
	// while no agent reads. Empty: output is dropped.
	LogPath string
	// ErrPath is a second FIFO, beside LogPath, for standard error alone. Empty:
	// both go to LogPath.
	ErrPath string
	// StopSignal asks the program to end. Default SIGTERM.
	StopSignal syscall.Signal
}

// RootKind says what a sandbox sees as its "/".
type RootKind uint8

// The kinds of root.
const (
	// Image is a directory (normally a mounted image) that becomes "/".
	Image RootKind = iota
	// HostView is an empty root with the host's /usr and a few files of its /etc,
	// all read-only, and the image at /app: for executables that bring no
	// libraries of their own.
	HostView
)

// String is "image" or "host view".
func (k RootKind) String() string {
	switch k {
	case Image:
		return "image"
	case HostView:
		return "host view"
	default:
		return "unknown root kind"
	}
}

// Root is the file system a sandbox starts from.
type Root struct {
	Kind RootKind
	// Image is the absolute host path of the mounted image: "/" of an Image
	// root, "/app" of a HostView. It stays mounted until the instance is
	// destroyed.
	Image string
	// Writable is how many bytes of changes to an Image root are kept, in the module's
	// memory and until it is destroyed; 0: the root is read-only. It needs Linux 5.19.
	Writable int64
}

// Mount binds a host file or directory into the sandbox. Bind the directory of a
// socket, not the socket: one that is made anew after a restart of the agent is
// another file, and only seen through its directory.
type Mount struct {
	// Source is absolute on the host and must exist; Target is absolute inside
	// and is made if the root lacks it.
	Source, Target string
	// Writable lets the module write there; otherwise the bind and all mounts
	// below it are read-only.
	Writable bool
	// Own gives Source itself (not what is in it) to the module's user, so that
	// it can write to a directory that root made. Only with Writable.
	Own bool
}

// HostEntry is one line of /etc/hosts.
type HostEntry struct {
	Addr  netip.Addr
	Names []string
}

// Network says which network namespace a sandbox is in.
type Network uint8

// The networks.
const (
	// None is a namespace of the sandbox's own with nothing in it but loopback.
	None Network = iota
	// Host is the network namespace of the host.
	Host
	// Bridge is a namespace of the sandbox's own that the agent joins to a network
	// of sandboxes between Create and Start.
	Bridge
)

// String is "none" or "host".
func (n Network) String() string {
	switch n {
	case None:
		return "none"
	case Host:
		return "host"
	case Bridge:
		return "bridge"
	default:
		return "unknown network"
	}
}

// Limits bound one sandbox. The zero value of each field means its default.
type Limits struct {
	// Memory in bytes, everything counted (tmpfs too); 0 is no limit, less than
	// [MinMemory] is refused.
	Memory int64
	// Swap in bytes on top of Memory; 0 is none. Only with Memory.
	Swap int64
	// CPU in thousandths of one core; 0 is no limit.
	CPU int64
	// Pids is the number of processes and threads; 0 is [DefaultPids].
	Pids int64
	// Files is the number of open files of one process; 0 is [DefaultFiles]. It
	// is lowered to what the agent itself may have.
	Files uint64
	// IO is what may be read a second, and as much written, in bytes, on each disk
	// that a mount or the image lies on; 0 is no limit. On cgroup version 1 writes
	// that wait in memory are not counted to anybody.
	IO int64
	// Tmp is the size in bytes of /tmp, and of /dev/shm; 0 is [DefaultTmp].
	Tmp int64
}

// Permission opens one wall of a sandbox. It needs two keys: the module's manifest
// asks for it, and the device's owner allows it to that module.
type Permission string

// The permissions.
const (
	// Trace lets processes of the sandbox trace and read each other: debuggers.
	Trace Permission = "trace"
	// IOUring lets it queue system calls in a ring, past the filter.
	IOUring Permission = "io_uring"
)

// Bounds and defaults of a Spec.
const (
	// MinMemory is the lowest memory limit: the sandbox's own start runs inside
	// the limit. On a kernel before 5.12 that start is larger, and the runtime
	// refuses less than 8 MiB.
	MinMemory = 1 << 20
	// MinIDBase keeps ranges clear of the host's own accounts.
	MinIDBase = 1 << 16
	// IDCount is the number of uids and gids of each sandbox.
	IDCount = 1 << 16
	// DefaultPids stops a fork bomb long before it hurts a small board.
	DefaultPids = 256
	// DefaultFiles is the usual soft limit of a Linux login.
	DefaultFiles = 1024
	// DefaultTmp is the size of /tmp in bytes.
	DefaultTmp = 16 << 20
)

// Device grants a device node of the host.
type Device struct {
	// Path of the node on the host, below /dev.
	Path string
	// Target is its path inside, below /dev. Default: Path.
	Target string
	// Access is made of "r" and "w". Default "rw".
	Access string
}
