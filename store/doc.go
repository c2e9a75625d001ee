// Package store keeps what must survive a power cut: messages on their way and
// small documents. It is the only package that knows the database beneath.
//
// The nouns:
//
//   - A [Record] is one message body with the places it must reach. [Queue]
//     takes it, and says so only when the disk has it.
//   - A sink is where messages go, named by a string that means nothing here. A
//     lane is one sink at one priority; inside a lane, first in is first out.
//   - A journal is a file that was filled with zeros once and is written over and
//     over. A commit is one block in it: one write, one flush, and then the
//     producers are told.
//   - A segment is a row of records. It begins as a draft, whose records are in a
//     journal and in memory; when the journal is full it is sealed: what nobody
//     has acknowledged meanwhile becomes a file that never changes, and the
//     journal is free. Records are never deleted one by one: when every lane has
//     passed a segment, the whole file is unlinked. A lane that stands still keeps
//     a segment: when less than a quarter of its file is wanted, it is written anew
//     without the rest, one a minute, and whenever the queue would be full. So such
//     a lane takes four times what it has, and 32 KiB for each segment.
//   - A document is a value under a key, kept by [Docs]: twins, sessions, keys.
//   - Damage is what a checksum, a page or a missing file tells about a disk
//     that did not keep its word. It is put aside, counted in [Usage] and
//     logged once; the store opens and the queue moves on. Losses of which no
//     trace is left are found by a sum, see FORMAT.md under Balance.
//
// Owner: [Store.Run] owns three goroutines. The committer takes whatever is
// waiting, makes it one commit, and then calls each producer back, in the order
// of arrival. The sealer makes files of drafts. The keeper writes cursors and
// unlinks drained segments.
// Documents need no goroutine: whoever is first commits for all that wait.
//
// Time to live counts the time the device was switched on and running, not the
// wall clock, which jumps by years on a board without a battery.
//
// The trap: an acknowledgement is remembered in memory at once and on disk
// with the next message that is stored, or within two seconds. A crash in between
// delivers messages again. It never loses one.
//
// On disk, below Config.Dir:
//
//	lock                   held while the store is open
//	state.db               documents, cursors, the catalog of sealed segments
//	journal/1-0badcafe.journal   the newest records and positions, and what an older life left behind them
//	seg/0000000000000001-0badcafe.db   a sealed segment, and the digest of its bytes
//	seg/0000000000000001.db            one of release 0.1.0, or what was saved of a damaged one
//	*.bad-N                the last damaged file, kept for a technician
package store
