// Package haltest holds the contract that every backend of pins and buses keeps, and plays recordings in tests.
//
// The nouns: a [Rig] is a backend with the resources that its world has; [Backend] runs the suite on it. A resource that a rig
// does not have is skipped aloud. [Replay] is a board that gives what was recorded of another, [Playback] one chip of it for periph.io's
// drivers. The suite owns no goroutine beyond its tests.
//
// The trap: the rig's Output and Input are wired together, in the simulator or on the bench; a rig that cannot wire them leaves
// Input empty.
package haltest
