package store

import (
	"sync/atomic"

	"go.etcd.io/bbolt"
)

// counters is what the store has done since it was opened.
type counters struct {
	commits, flushes, written, records atomic.Uint64
	damaged, documents                 atomic.Uint64
}

// commit counts a transaction: bbolt flushes once behind the pages and once
// behind the meta page.
func (c *counters) commit(tx *bbolt.Tx) {
	stats := tx.Stats()
	c.commits.Add(1)
	c.flushes.Add(2)
	c.written.Add(uint64(stats.GetPageAlloc()) + pageSize)
}

// wrote counts bytes that we write beside bbolt; synced counts our own flushes.
func (c *counters) wrote(n int) { c.written.Add(uint64(n)) }
func (c *counters) synced()     { c.flushes.Add(1) }

// Usage is the store in numbers: what it holds, and what it did since [Open].
type Usage struct {
	Held     int64 // bytes of journals and segment files on disk
	Pending  int64 // bytes of message bodies not yet acknowledged, once for each sink
	Limit    int64 // bytes that journals and segment files may take
	Free     int64 // bytes free on the partition, for all its users
	Segments int   // sealed ones and those that are in a journal
	Waiting  int   // records that a producer handed over and that are not yet on disk

	Records uint64 // made durable
	Commits uint64 // of journals and of state.db
	Flushes uint64 // of the disk's cache
	Written uint64 // bytes, as whole pages, without what the file system adds

	DamagedFiles     uint64 // put aside as *.bad-N
	DamagedRecords   uint64 // messages that the disk did not keep, once for each sink
	DamagedDocuments uint64
	Recovered        bool // state.db was damaged or missing and was made anew
	Full             bool // producers get ErrFull
	Failing          bool // producers get another error of the disk
}
