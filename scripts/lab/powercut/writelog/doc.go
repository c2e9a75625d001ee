// Package writelog records what a process does to a folder, and makes the folders that a power cut may leave of it.
//
// The nouns:
//
//   - A [Log] is the folder as it was, and every [Op] on it in the order of issue: data, names, flushes, and the lines that
//     the process said on standard output between them.
//   - A point is a moment of the log. Before it, an operation is durable when a flush of its file (or, for a name, of its
//     folder) began after the operation had ended and ended before the point. All others are pending.
//   - A [Tree] is a folder in memory: what [Log.Cut] returns. Of the pending operations any may be missing, whatever their
//     order; a write may be torn at a sector; the names of a folder survive as a prefix of what was done to it.
//
// [Record] owns the thread that traces the process, by ptrace behind a seccomp filter that the process puts on itself with
// [Trace]; no root is needed. It knows the system calls of 64-bit ARM and x86.
//
// The trap: what it cannot see (shared writable mappings, io_uring) ends the recording with an error, and a recording is
// only worth something when [Log.Compare] finds the log, played whole, equal to the folder on disk.
package writelog
