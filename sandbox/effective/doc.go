// Package effective finds out what a module can really do, from inside its
// sandbox, and holds that against what it was granted.
//
// The nouns:
//
//   - A probe is one attempt at something a module may be refused: a system
//     call, a file, a socket. It is harmless where it succeeds: it changes
//     nothing, or to what it was.
//   - [Finding] is what came of one probe. [Run] makes them all; it is called in
//     a process inside the sandbox (`sandpiper probe`).
//   - [Grants] is what the module was given on purpose. [Grants.Drift] lists where
//     the findings differ: more than granted is a hole, less is a broken promise.
//
// Each probe runs on a thread of its own that ends with it, so that one which
// succeeds (a changed root, a new user) does not colour the next. The one trap:
// an error is not always a refusal. A call with arguments that cannot work is
// refused with EPERM where it is walled off, and fails with EINVAL where it is
// not: only the errors in [refused] count as walls.
package effective
