// Package checkup is the technician's question: is each part of this device well, and if not, what to do?
//
// [Run] asks one [Area] after the other and hands out [Finding]s as they are found, so that a slow network holds nothing back. It changes
// nothing, needs no running agent, and never speaks as the device: a second connection under its name would push the agent's off the hub.
//
// Three rules for an area: it says what it saw even when all is well; its remedy is something that can be done at the device; and what it
// cannot see is [Unknown] with the reason, never [Well].
//
// The trap: a kernel file that is absent means that the kernel has no such thing, or that nobody may know. Areas say which they take it for.
package checkup
