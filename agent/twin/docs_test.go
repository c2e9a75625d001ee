package twin

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// memory is a Docs of which one Put can be made to fail, before or after it took effect.
type memory struct {
	mu   sync.Mutex
	docs map[string][]byte
	puts int
	fail func(put int) (before, after bool)
}

var errDisk = errors.New("disk is gone")

func newMemory() *memory { return &memory{docs: map[string][]byte{}} }

func (m *memory) Get(key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.docs[key]), nil
}

func (m *memory) Put(ctx context.Context, key string, value []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	before, after := false, false
	if m.fail != nil {
		before, after = m.fail(m.puts)
	}
	if before {
		return errDisk
	}
	if value == nil {
		delete(m.docs, key)
	} else {
		m.docs[key] = slices.Clone(value)
	}
	if after {
		return errDisk
	}
	return nil
}

func (m *memory) Keys(prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(m.docs)) {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func open(t testing.TB, docs Docs) *Keeper {
	t.Helper()
	k, err := NewKeeper(docs)
	if err != nil {
		t.Fatalf("open keeper: %v", err)
	}
	return k
}
