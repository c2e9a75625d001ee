package supervisor

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
)

// memory is a store of documents of which writes of some keys can be made to fail.
type memory struct {
	mu   sync.Mutex
	docs map[string][]byte
	fail string // prefix of keys
	puts int
	put  func(key string) // told of each that is done; nil = nobody
}

var errDisk = errors.New("no space left on device")

func newMemory() *memory { return &memory{docs: map[string][]byte{}} }

func (m *memory) Get(key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.docs[key]), nil
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	if m.put != nil {
		defer m.put(key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	if m.fail != "" && strings.HasPrefix(key, m.fail) {
		return errDisk
	}
	if value == nil {
		delete(m.docs, key)
	} else {
		m.docs[key] = slices.Clone(value)
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

func (m *memory) failing(prefix string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = prefix
}

func (m *memory) writes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.puts
}

func (m *memory) has(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.docs[key] != nil
}
