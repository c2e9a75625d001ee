// Package state is everything the hub remembers, on NATS JetStream.
//
// The rest of the hub sees four nouns and no NATS:
//
//   - [Docs]: documents by [Key]. Get, compare-and-set several at once, watch.
//   - [Log]: device events, appended and read by offset.
//   - [Presence]: which hub process holds whose connection.
//   - [Bus]: ask and tell between hub processes.
//
// A device, its modules, twins and sessions live in one shard, so that one [Docs.Change] changes them together; nothing
// spans shards. With [Config.Dir] the server runs inside this process, listens nowhere and syncs every write before it
// answers. The shards, names and escaping are fixed at creation: see the hub record in [Open].
//
// Goroutines: [State.Run] owns the committers, one per shard for documents and one for the log. Writes made before Run
// wait for it. Watches and reads belong to their caller's context.
//
// The trap: a write is durable when its call (or callback) says so, and not before; and a [Watch] shows the newest
// revision of a document, never each one between.
package state
