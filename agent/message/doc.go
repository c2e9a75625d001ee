// Package message is the envelope of telemetry inside the agent: what one identity published, as it waits in the
// store and as it leaves for the hub or for an input of a module.
//
// The noun is [Message]. [FromPublish] takes one in and checks the service's limits, [Message.Upstream] and
// [Message.Input] say which properties leave with it, [Message.Append] and [Decode] are its durable form: a small
// CBOR map with integer keys and a version, described in encode.go and pinned by a golden file of every version.
//
// The package is pure: no goroutine, no clock, no I/O.
//
// The trap: a Message shares its Bag and Body with whoever made it. FromPublish takes them over; nobody writes to
// them afterwards, so a Message may be read from several goroutines at once.
package message
