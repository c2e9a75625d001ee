package state

import (
	"log/slog"
	"time"
)

// metaShard is the shard number of the hub's own documents.
const metaShard = -1

// Limits of the committers. A batch costs about ten single publishes, hence the break-even; the other two keep one
// batch well below the server's 1000 messages and below a second of disk.
const (
	batchBreakEven = 12      // fewer waiting messages than this are published one by one
	batchMessages  = 256     // messages in one batch of several changes
	batchBytes     = 1 << 20 // bytes in one batch of several changes
	changeMessages = 512     // documents in one Change; the server takes 1000
	queueBytes     = 8 << 20 // waiting bytes of one stream, queueOverhead included, before Append blocks
	queueOverhead  = 2 << 10 // counted for each waiting message, so that at most 4096 wait
	ackTimeout     = 5 * time.Second
	ackAttempts    = 5 // a publish whose answer was lost is repeated with the same message ids
	dedupWindow    = time.Minute
)

// Config says where the state is and how it is laid out. Only Hub and Dir are needed.
type Config struct {
	Hub       string        // the hub's name, see HubName
	Dir       string        // directory of the embedded server; made when missing
	Shards    int           // fixed at creation; default 4, at most 64
	LogAge    time.Duration // how long events are kept; default 24 h
	LogBytes  int64         // bytes of events kept in each shard, oldest dropped first; default 4 GiB
	MinFree   int64         // free bytes on the disk below which writes are refused; default 64 MiB
	NoBatches bool          // publish one by one: slower, and changes of several documents are refused
	Logger    *slog.Logger  // default: discard
}

func (c Config) withDefaults() Config {
	if c.Shards == 0 {
		c.Shards = 4
	}
	if c.LogAge == 0 {
		c.LogAge = 24 * time.Hour
	}
	if c.LogBytes == 0 {
		c.LogBytes = 4 << 30
	}
	if c.MinFree == 0 {
		c.MinFree = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
