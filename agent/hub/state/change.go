package state

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
)

// ErrChange is a change that no caller should ask for: empty, too large, over several shards, or with a key twice.
var ErrChange = errors.New("not a possible change")

// markerAge is how long a deletion is remembered. It only has to outlive writers that read the document before.
const markerAge = "3600s"

// Change stores all puts or none and returns their new revisions, durable. All keys must be of one shard, each once.
// When any document is not at the revision expected the answer is [ErrConflict] and nothing is stored.
func (d *Docs) Change(ctx context.Context, puts ...Put) ([]uint64, error) {
	messages, shard, err := d.messages(puts)
	if err != nil {
		return nil, err
	}
	type result struct {
		last uint64
		err  error
	}
	answer := make(chan result, 1) // 1: the committer never waits for us
	c := d.committer(shard)
	if err := c.queue.add(ctx, newChange(messages, func(last uint64, err error) { answer <- result{last, err} })); err != nil {
		return nil, fmt.Errorf("change documents: %w", err)
	}
	// Once queued it will be stored whatever the caller does, so the answer is waited for.
	r := <-answer
	switch {
	case hasCode(r.err, codeWrongSequence, codeWrongConstant):
		return nil, fmt.Errorf("change %s: %w", puts[0].Key, ErrConflict)
	case r.err != nil:
		return nil, fmt.Errorf("change %s: %w", puts[0].Key, r.err)
	case r.last == 0:
		return d.reread(ctx, puts)
	}
	revisions := make([]uint64, len(puts))
	for i := range puts {
		revisions[i] = r.last - uint64(len(puts)-1-i)
	}
	return revisions, nil
}

// reread finds the revisions of a change whose first answer was lost.
func (d *Docs) reread(ctx context.Context, puts []Put) ([]uint64, error) {
	revisions := make([]uint64, len(puts))
	for i, p := range puts {
		doc, err := d.Get(ctx, p.Key)
		if err != nil {
			return nil, err
		}
		revisions[i] = doc.Revision
	}
	return revisions, nil
}

func (d *Docs) messages(puts []Put) ([]*nats.Msg, int, error) {
	if len(puts) == 0 || len(puts) > changeMessages {
		return nil, 0, fmt.Errorf("change %d documents: %w", len(puts), ErrChange)
	}
	shard := d.shard(puts[0].Key)
	prefix := d.names.docsSubject(shard)
	seen := make(map[Key]bool, len(puts))
	messages := make([]*nats.Msg, len(puts))
	for i, p := range puts {
		if d.shard(p.Key) != shard || seen[p.Key] {
			return nil, 0, fmt.Errorf("change %s: %w", p.Key, ErrChange)
		}
		seen[p.Key] = true
		m := nats.NewMsg(prefix + p.Key.String())
		m.Data = p.Value
		m.Header[nats.MsgIdHdr] = []string{d.committers[0].wire.id()}
		m.Header[headerExpect] = []string{strconv.FormatUint(p.Expect, 10)}
		if p.Value == nil {
			m.Header[headerOperation] = []string{"DEL"}
			m.Header["Nats-TTL"] = []string{markerAge}
		}
		messages[i] = m
	}
	return messages, shard, nil
}
