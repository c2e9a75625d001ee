// Package hal grants modules single pins, addresses, registers and identifiers of a board, does their I/O, and leaves every output
// safe when the one who drove it is gone.
//
// The nouns: a [Resource] is one thing that the device's owner named in [Config]; a [Grant] is what a deployment asks for; what
// both allow is an [Effective] right, made by [Permit]. A [Server] holds grants, leases and workers. A [Backend] reaches the
// kernel (room hal/linux) or a simulation ([Sim]); what it opens is a [Line], a [Bus], a [Sensor] or an [Output].
//
// Who owns the goroutines: each open bus has one worker, which belongs to the [Server] and ends with its Close. A device is used by
// one goroutine at a time, its worker; only Edges readers live beside it. Backends start no goroutine before Changes.
//
// The trap: an I/O call cannot be cancelled. A call that overstays its deadline leaves its bus "stuck": callers get their answer, the
// worker waits on, and the bus heals when the call returns. A backend must not answer for a call that is still under way.
package hal
