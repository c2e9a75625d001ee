package state

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// createStreams makes what is missing and brings limits up to date.
func createStreams(ctx context.Context, js jetstream.JetStream, n names, cfg Config) error {
	for shard := metaShard; shard < cfg.Shards; shard++ {
		if err := createStream(ctx, js, docsConfig(n, shard)); err != nil {
			return err
		}
	}
	for shard := range cfg.Shards {
		if err := createStream(ctx, js, logConfig(n, shard, cfg)); err != nil {
			return err
		}
	}
	_, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket:  n.liveBucket(),
		Storage: jetstream.MemoryStorage,
		History: 1,
	})
	if err != nil {
		return fmt.Errorf("create bucket %s: %w", n.liveBucket(), err)
	}
	return nil
}

func createStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
	if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("create stream %s: %w", cfg.Name, err)
	}
	return nil
}

// docsConfig is a key-value bucket as the client library lays it out, with atomic batches, which it does not set.
func docsConfig(n names, shard int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               n.docsStream(shard),
		Subjects:           []string{n.docsSubject(shard) + ">"},
		Storage:            jetstream.FileStorage,
		Replicas:           1,
		MaxMsgsPerSubject:  1,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		MaxMsgSize:         -1,
		MaxConsumers:       -1,
		Discard:            jetstream.DiscardNew,
		Duplicates:         dedupWindow,
		AllowRollup:        true,
		DenyDelete:         true,
		AllowDirect:        true,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true,
	}
}

func logConfig(n names, shard int, cfg Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               n.logStream(shard),
		Subjects:           []string{n.logSubjects(shard)},
		Storage:            jetstream.FileStorage,
		Replicas:           1,
		MaxAge:             cfg.LogAge,
		MaxBytes:           cfg.LogBytes,
		MaxMsgs:            -1,
		MaxMsgSize:         -1,
		MaxConsumers:       -1,
		Discard:            jetstream.DiscardOld,
		Duplicates:         min(dedupWindow, cfg.LogAge),
		AllowDirect:        true,
		AllowAtomicPublish: true,
	}
}
