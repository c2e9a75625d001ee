// Package sandbox says what a sandbox is: the room one module runs in, and the
// contract of whoever makes such rooms.
//
// The nouns:
//
//   - [Spec] is everything that makes one sandbox: root, mounts, identifiers,
//     network, limits, devices. It is data; [Spec.Validate] refuses what no
//     runtime may be asked to do, in one line each.
//   - [Runtime] makes instances, finds them again after a restart of the agent,
//     and says what the kernel below can do ([Features]).
//   - [Instance] is one module from Create to Destroy. It is made waiting: its
//     namespaces exist, its program has not run yet, and listeners may be opened
//     inside it ([Instance.Listen]) before [Instance.Start] lets it go.
//   - [Exit] is how it ended, or that nobody can know.
//
// Nothing here starts a goroutine. The runtime that does anything is
// sandbox/container (Linux namespaces through libcontainer); an in-memory one
// for tests, and the suite both must pass, are in sandbox/sandboxtest.
//
// The one trap: an instance outlives the agent. Ending a context, closing a
// listener or ending the agent's process never ends a module; only
// [Instance.Signal], [Instance.Kill] and [Instance.Destroy] do.
package sandbox
