package state

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Watch calls fn for every document of the kinds in one shard, as they are and then as they change, until ctx ends,
// which is the only way it ends without an error worth a look. ready, if not nil, is called when all that was there has been shown.
// A deleted document comes with a nil Value. Revisions between two calls may be left out, never the newest.
func (d *Docs) Watch(ctx context.Context, shard int, kinds []string, ready func(), fn func(Doc)) error {
	if ready == nil {
		ready = func() {}
	}
	prefix := d.names.docsSubject(shard)
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy}
	for _, kind := range kinds {
		cfg.FilterSubjects = append(cfg.FilterSubjects, prefix+"*."+kind, prefix+"*.m.*."+kind)
	}
	shown := false
	start := func(pending uint64) error {
		if pending == 0 {
			shown = true
			ready()
		}
		return nil
	}
	return d.watchers.each(ctx, d.names.docsStream(shard), cfg, start, func(m item) error {
		key, err := ParseKey(strings.TrimPrefix(m.Subject(), prefix))
		if err != nil {
			return fmt.Errorf("watch documents: %w", err)
		}
		doc := newDoc(m.seq, m.Headers(), m.Data())
		doc.Key = key
		fn(doc)
		if !shown && m.pending == 0 {
			shown = true
			ready()
		}
		return nil
	})
}
