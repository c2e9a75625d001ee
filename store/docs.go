package store

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
)

const (
	// MaxKey is the length of the longest document key in bytes.
	MaxKey = 1024
	// MaxDoc is the size of the largest document in bytes.
	MaxDoc = 4 << 20
)

// Docs keeps small documents: twins, sessions, keys. A key is any text of up to
// [MaxKey] bytes; "/" in it groups keys for [Docs.Keys] and means nothing else.
// Every change is durable when the call returns, and all that change something
// at the same time share one flush of the disk. It works from [Open] to
// [Store.Close], whether [Store.Run] runs or not.
type Docs struct {
	state *state
}

// Get returns the document under key, or nil if there is none. The caller owns
// the bytes. The error is ErrDamaged if the disk did not keep it.
func (d *Docs) Get(key string) (value []byte, err error) {
	err = d.state.read(func(tx *bbolt.Tx) error {
		value, err = getDoc(tx, key)
		return err
	})
	return value, err
}

// Put makes value the document under key; nil deletes it. It is durable when
// Put returns nil. ErrFull: the disk, or the 64 MiB that documents may take, is
// full. The context is looked at once, before the disk is: a change that has
// begun ends.
func (d *Docs) Put(ctx context.Context, key string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %q: %w", key, err)
	}
	if err := checkDoc(key, value); err != nil {
		return err
	}
	keep := d.state.do
	if value != nil {
		keep = d.state.grow
	}
	if err := keep(func(tx *bbolt.Tx) error { return putDoc(tx, key, value) }); err != nil {
		return fmt.Errorf("put %q: %w", key, err)
	}
	return nil
}

// Keys returns the keys that start with prefix, in order.
func (d *Docs) Keys(prefix string) (keys []string, err error) {
	err = d.state.read(func(tx *bbolt.Tx) error {
		keys = docKeys(tx, prefix)
		return nil
	})
	return keys, err
}

// Update runs fn, which sees one state of all documents and its own changes, and
// makes its changes durable together: all or none. If fn returns an error
// nothing is changed and Update returns that error. Nothing else is committed
// while fn runs: it must be quick and must not use Docs itself.
func (d *Docs) Update(ctx context.Context, fn func(tx DocsTx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("update documents: %w", err)
	}
	return d.state.update(func(tx *bbolt.Tx) (func(*bbolt.Tx) error, error) {
		changes := map[string][]byte{}
		if err := fn(DocsTx{tx: tx, changes: changes}); err != nil || len(changes) == 0 {
			return nil, err
		}
		return func(tx *bbolt.Tx) error {
			for _, key := range slices.Sorted(maps.Keys(changes)) {
				if err := putDoc(tx, key, changes[key]); err != nil {
					return fmt.Errorf("put %q: %w", key, err)
				}
			}
			return nil
		}, nil
	})
}

// DocsTx is the documents inside [Docs.Update]. It is of no use after fn
// returned.
type DocsTx struct {
	tx      *bbolt.Tx
	changes map[string][]byte
}

// Get is [Docs.Get] with the changes made so far.
func (t DocsTx) Get(key string) (value []byte, err error) {
	if value, ok := t.changes[key]; ok {
		return bytes.Clone(value), nil
	}
	defer catch(&err)
	defer faults()()
	return getDoc(t.tx, key)
}

// Put makes value the document under key when Update ends well; nil deletes it.
func (t DocsTx) Put(key string, value []byte) error {
	if err := checkDoc(key, value); err != nil {
		return err
	}
	t.changes[key] = bytes.Clone(value)
	return nil
}

// Keys is [Docs.Keys] with the changes made so far.
func (t DocsTx) Keys(prefix string) (keys []string, err error) {
	defer catch(&err)
	defer faults()()
	keys = docKeys(t.tx, prefix)
	for key, value := range t.changes {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		i, found := slices.BinarySearch(keys, key)
		switch {
		case value == nil && found:
			keys = slices.Delete(keys, i, i+1)
		case value != nil && !found:
			keys = slices.Insert(keys, i, key)
		}
	}
	return keys, nil
}

func checkDoc(key string, value []byte) error {
	if len(key) == 0 || len(key) > MaxKey {
		return fmt.Errorf("document key of %d bytes: it must have 1 to %d", len(key), MaxKey)
	}
	if len(value) > MaxDoc {
		return fmt.Errorf("document %q of %d bytes: %w", key, len(value), ErrTooLarge)
	}
	return nil
}

func getDoc(tx *bbolt.Tx, key string) ([]byte, error) {
	b := tx.Bucket(bucketDocs).Get([]byte(key))
	if b == nil {
		return nil, nil
	}
	content, ok := opened([]byte(key), b)
	if !ok {
		return nil, fmt.Errorf("document %q: %w", key, ErrDamaged)
	}
	return append([]byte{}, content...), nil // not nil when empty
}

func putDoc(tx *bbolt.Tx, key string, value []byte) error {
	if value == nil {
		return tx.Bucket(bucketDocs).Delete([]byte(key))
	}
	return tx.Bucket(bucketDocs).Put([]byte(key), sealed([]byte(key), value))
}

func docKeys(tx *bbolt.Tx, prefix string) []string {
	var keys []string
	c := tx.Bucket(bucketDocs).Cursor()
	for k, _ := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, _ = c.Next() {
		keys = append(keys, string(k))
	}
	return keys
}

// sift drops the documents whose checksum is wrong: an owner that finds none
// makes or fetches a new one, where an error for ever would help nobody.
func (s *state) sift() (dropped int, err error) {
	var bad [][]byte
	err = s.read(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketDocs).ForEach(func(k, v []byte) error {
			if _, ok := opened(k, v); !ok {
				bad = append(bad, bytes.Clone(k))
			}
			return nil
		})
	})
	if err != nil || len(bad) == 0 {
		return 0, err
	}
	for _, key := range bad {
		s.log.Error("document is damaged and was dropped", "key", string(key))
	}
	return len(bad), s.do(func(tx *bbolt.Tx) error {
		for _, key := range bad {
			if err := tx.Bucket(bucketDocs).Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}
