// Package entry is the first process of a sandbox, from its clone to the moment
// it becomes the module's program.
//
// The nouns:
//
//   - [Child] is that process: this very binary, started again from a sealed
//     file in namespaces of its own, where C code takes over before the Go
//     runtime begins (entry.c). No package initialiser runs, no heap is made: a
//     start costs what the kernel's part of it costs, and fits in a few hundred
//     kilobytes of the module's memory limit.
//   - [Script] is what it does there, step by step: mounts, root, names, user,
//     filter, program. The agent decides everything and opens everything; the
//     child resolves paths only below the new root, and never through a link.
//   - [Sealed] is the file it runs from: the binary itself through a read-only
//     overlay, not a copy, and not to be written to from inside.
//
// It needs Linux 5.12 (mount_setattr, openat2, open_tree); [Supported] tells.
// Older kernels start their sandboxes through libcontainer's own init.
//
// Nothing here starts a goroutine. The one trap: the child shares its pid
// namespace's fate. When it ends before its time, everything in the sandbox
// does, so a step that does not work ends it, after saying which.
package entry
