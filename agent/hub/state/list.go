package state

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Modules returns the documents of one kind of all modules of a device, in the order of their last change.
func (d *Docs) Modules(ctx context.Context, device, kind string) ([]Doc, error) {
	var docs []Doc
	shard := d.Shard(device)
	subject := d.names.docsSubject(shard) + escape(device) + ".m.*." + kind
	err := d.list(ctx, shard, []string{subject}, false, func(doc Doc) { docs = append(docs, doc) })
	return docs, err
}

// Keys calls fn with the key of every document of one kind, of devices or of modules. The order is that of last changes.
// It costs a walk over the names of the shard, not over its documents.
func (d *Docs) Keys(ctx context.Context, shard int, kind string, modules bool, fn func(Key)) error {
	subject := d.names.docsSubject(shard) + "*." + kind
	if modules {
		subject = d.names.docsSubject(shard) + "*.m.*." + kind
	}
	return d.list(ctx, shard, []string{subject}, true, func(doc Doc) { fn(doc.Key) })
}

// All calls fn with every document of one kind of the devices of a shard, in the order of their last change.
func (d *Docs) All(ctx context.Context, shard int, kind string, fn func(Doc)) error {
	return d.list(ctx, shard, []string{d.names.docsSubject(shard) + "*." + kind}, false, fn)
}

// list shows what exists now under the subjects.
func (d *Docs) list(ctx context.Context, shard int, subjects []string, namesOnly bool, fn func(Doc)) error {
	prefix := d.names.docsSubject(shard)
	cfg := jetstream.OrderedConsumerConfig{
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
		FilterSubjects: subjects,
		HeadersOnly:    namesOnly,
	}
	end := func(pending uint64) error {
		if pending == 0 {
			return errStop
		}
		return nil
	}
	err := d.watchers.each(ctx, d.names.docsStream(shard), cfg, end, func(m item) error {
		key, err := ParseKey(strings.TrimPrefix(m.Subject(), prefix))
		if err != nil {
			return fmt.Errorf("list documents: %w", err)
		}
		doc := newDoc(m.seq, m.Headers(), m.Data())
		doc.Key = key
		if doc.Exists() {
			fn(doc)
		}
		return end(m.pending)
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
