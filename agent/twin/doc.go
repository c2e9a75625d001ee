// Package twin holds twin documents as IoT Hub defines them, and keeps those of this device.
//
// The nouns. A *section* is desired, reported or tags: one JSON object under the limits of [Validate]. A *patch* is an RFC 7396
// merge patch of a section; its nulls delete. [Merge], [Compose], [Diff] and [Touch] are pure and never change what they are given;
// numbers stay the text they arrived as. A [Snapshot] is one twin as it is now. A [Change] is what a client must be told about
// its desired section. A [Keeper] holds the twins of every identity of this device, durable before anything is answered.
//
// No goroutine is owned here. Each call works on its caller's goroutine; callbacks run on the goroutine of some caller, in
// version order per identity, never under a lock, so they may call the keeper again.
//
// The trap: merge patches are not closed under composition. "Delete a, then make a an object" is no merge patch, because a patch
// cannot say "not what was there before". The keeper therefore remembers such objects as replaced until it knows from its
// copy of the hub's section which members have to be named with null.
//
// # On disk
//
// An identity owns two documents, each written by one atomic Put, so that a chatty reported section does not rewrite desired:
//
//	twin/desired/{id}   version, section, the last differences, members that are gone
//	twin/reported/{id}  version, base (what the hub is known to hold), pending (one patch on top of it)
//
// What a power cut leaves:
//   - in PatchReported before its Put: the old section; the client has no answer and repeats. After it: the new section and its
//     pending patch; the client may repeat, which changes nothing but the version.
//   - between Pending, the hub's answer and Sent: the patch is still pending and is sent again; applying it twice gives the same.
//   - in ApplyDesired or SetDesired before the Put: the old section; the hub's next patch shows a gap. After it, before the
//     callbacks: the new section. A listener compares [Keeper.Snapshot] or [Keeper.DesiredSince] with the version it acted on.
//   - in Replace between its two Puts: new desired, old base; the next connection replaces again.
//   - in Forget between its two Puts: the desired section alone; Forget again removes it.
//
// A Put that fails may still have reached the disk. Memory then keeps the older state, the caller has an error and repeats.
package twin
