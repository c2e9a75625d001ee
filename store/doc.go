// Package store keeps what must survive a power cut: messages on their way and
// small documents. It is the only package that knows the database beneath.
//
// The nouns:
//
//   - A [Record] is one message body with the places it must reach. [Queue]
//     takes it, and says so only when the disk has it.
//   - A sink is where messages go, named by a string that means nothing here. A
//     lane is one sink at one priority; inside a lane, first in is first out.
//   - A segment is a file of records. Records are never deleted one by one: when
//     every lane has passed a segment, the whole file is unlinked.
//   - A document is a value under a key, kept by [Docs]: twins, sessions, keys.
//   - Damage is what a checksum, a page or a missing file tells about a disk
//     that did not keep its word. It is put aside, counted in [Usage] and
//     logged once; the store opens and the queue moves on.
//
// Owner: [Store.Run] owns two goroutines. The committer takes whatever is
// waiting, makes it one transaction, and then calls each producer back, in the
// order of arrival. The keeper writes cursors and unlinks drained segments.
// Documents need no goroutine: whoever is first commits for all that wait.
//
// Time to live counts the time the device was switched on and running, not the
// wall clock, which jumps by years on a board without a battery.
//
// The trap: an acknowledgement is remembered in memory at once and on disk
// within two seconds. A crash in between delivers messages again. It never
// loses one.
//
// On disk, below Config.Dir:
//
//	lock                   held while the store is open
//	state.db               documents, cursors, the catalog of sealed segments
//	seg/0000000000000001.db   records, in the order in which they were accepted
//	*.bad-N                the last damaged file, kept for a technician
package store
