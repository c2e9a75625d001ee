package identity

import (
	"context"
	"encoding/json"
	"fmt"
)

// Docs is where keys are kept: the store's documents, in a file only the agent may read. Get returns nil for an absent key; Put
// returns when the value is durable, a nil value deletes.
type Docs interface {
	Get(key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Keys(prefix string) ([]string, error)
}

// load decodes the document under key into out and says whether there was one.
func load(docs Docs, key string, out any) (bool, error) {
	raw, err := docs.Get(key)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", key, err)
	}
	if raw == nil {
		return false, nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return false, fmt.Errorf("decode %s: %w", key, err)
	}
	return true, nil
}

// save makes doc durable under key.
func save(ctx context.Context, docs Docs, key string, doc any) error {
	raw, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if err := docs.Put(ctx, key, raw); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}
