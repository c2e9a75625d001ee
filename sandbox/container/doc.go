// Package container is the sandbox runtime on Linux: libcontainer in this very
// process, and the warden that lets modules outlive it.
//
// The nouns:
//
//   - [Runtime] makes and recovers instances. Each has a user namespace with an
//     id range of its own, all other namespaces, no capability, a seccomp filter,
//     a read-only root, a device list and cgroup limits.
//   - [Warden] is the parent of the agent: a child subreaper without network and
//     configuration that restarts the agent, and writes down how each process
//     ended whose parent was gone.
//   - [Ledger] is what the warden writes: one line per ended process.
//   - The other half of Create is sandbox/container/entry: this binary again, in
//     the new namespaces, where C code does what the agent wrote down. What it
//     makes is libcontainer's from then on: state, further processes, groups.
//   - [Init] is the same on kernels before 5.12 and for further processes:
//     libcontainer starts this binary again, and main hands over to it first.
//
// A goroutine per instance waits, without a thread, until its process has ended,
// and ends with it. Warden runs on its caller's goroutine and thread.
//
// The one trap: nothing in a process that uses this package may wait for
// children it did not start (no wait4(-1)), except the warden, which starts
// nothing but the agent. Whoever reaps an instance's process takes its exit code.
//
// On disk, below Config.StateDir (a tmpfs: a reboot must clear it):
//
//	instances/<id>/   libcontainer's state, and exit: how the program ended
//	roots/<id>/       skel (mount points, /etc) and, for images, merged
//	nodes/            a tmpfs with a copy of each granted device node
//	log/              FIFOs that the warden keeps open
//	exits             the warden's ledger
//	warden.lock, agent.lock, notify
package container
