package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// sample makes a bbolt file with a tree of several levels, an inline bucket,
// values with overflow pages and a list of free pages.
func sample(tb testing.TB, noFreelistSync bool) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "sample.db")
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{PageSize: pageSize, NoFreelistSync: noFreelistSync, NoSync: true})
	if err != nil {
		tb.Fatal(err)
	}
	for round := range 4 {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(bucketRecords)
			if err != nil {
				return err
			}
			for i := range 300 {
				key := fmt.Appendf(nil, "%0*d", 4+i%50, i*(round+1))
				if err := b.Put(key, bytes.Repeat([]byte{byte(i)}, i%40*(round*8+1))); err != nil {
					return err
				}
			}
			inline, err := tx.CreateBucketIfNotExists([]byte("inline"))
			if err != nil {
				return err
			}
			return inline.Put([]byte{byte(round)}, make([]byte, 10*round))
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	m, _, err := readMeta(bytes.NewReader(b))
	if err != nil {
		tb.Fatal(err)
	}
	return b[:m.high*pageSize]
}

// survey opens a file as the store would and touches all of it, twice: to read,
// and to write. It must not panic, which bbolt does on a file it cannot follow.
func survey(tb testing.TB, path string, write bool) error {
	tb.Helper()
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{PageSize: pageSize, ReadOnly: !write, Timeout: time.Second, NoSync: true})
	if err != nil {
		return err
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, _ []byte) error { b.Get(k); return nil })
		})
	})
	if err != nil || !write {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("written"))
		if err != nil {
			return err
		}
		return b.Put([]byte("k"), make([]byte, 10_000))
	})
}

// Field reports etcd-io/bbolt#335, #325 and #135: what verify lets pass, bbolt
// can open, read and write.
func TestWhatPassesVerifyIsSafeToOpen(t *testing.T) {
	t.Parallel()
	for name, noFreelistSync := range map[string]bool{"segment": true, "state.db": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := sample(t, noFreelistSync)
			path := filepath.Join(t.TempDir(), "damaged.db")
			rng := rand.New(rand.NewPCG(1, 2))
			passed, refused := 0, 0
			for i := range 600 {
				b := harm(rng, whole)
				overwrite(t, path, b)
				if err := verify(path, 1); err != nil {
					if !isDamage(err) {
						t.Fatalf("case %d: got %v, want damage", i, err)
					}
					refused++
					continue
				}
				passed++
				func() {
					defer func() {
						if p := recover(); p != nil {
							t.Errorf("case %d: verify passed a file on which bbolt panics: %v", i, p)
						}
					}()
					// A segment is never opened to be written again.
					if err := survey(t, path, !noFreelistSync); err != nil {
						t.Errorf("case %d: verify passed a file and bbolt says %v", i, err)
					}
				}()
			}
			if passed == 0 || refused == 0 {
				t.Errorf("got %d passed and %d refused, want some of both", passed, refused)
			}
		})
	}
}

// overwrite makes b the content of a file without the flush that a truncation
// costs.
func overwrite(tb testing.TB, path string, b []byte) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = f.WriteAt(b, 0)
	if err := errors.Join(err, f.Truncate(int64(len(b))), f.Close()); err != nil {
		tb.Fatal(err)
	}
}

// harm returns a copy of b with one of the things that disks do.
func harm(rng *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	pages := len(b) / pageSize
	at := rng.IntN(pages) * pageSize
	p := b[at : at+pageSize]
	switch rng.IntN(7) {
	case 0: // a bit, mostly where structure is
		n := []int{headerSize, 256, pageSize}[rng.IntN(3)]
		p[rng.IntN(n)] ^= 1 << rng.IntN(8)
	case 1:
		clear(p)
	case 2: // a sector of rubbish
		sector := p[rng.IntN(8)*512:][:512]
		for i := range sector {
			sector[i] = byte(rng.Uint32())
		}
	case 3: // a write that went to another place
		copy(p, b[rng.IntN(pages)*pageSize:][:pageSize])
	case 4: // the same, with the right number
		id := bytes.Clone(p[:8])
		copy(p, b[rng.IntN(pages)*pageSize:][:pageSize])
		copy(p, id)
	case 5: // a tail that was not written
		b = b[:rng.IntN(len(b))]
	case 6: // numbers in elements
		p[headerSize+rng.IntN(16)*elemSize+rng.IntN(elemSize)] = byte(rng.Uint32())
	}
	return b
}

func FuzzVerify(f *testing.F) {
	whole := sample(f, false)
	f.Add(uint16(2), uint16(10), []byte{1, 2, 3})
	f.Add(uint16(0), uint16(headerSize), make([]byte, 64))
	f.Fuzz(func(t *testing.T, pg, offset uint16, patch []byte) {
		b := bytes.Clone(whole)
		at := int(pg)%(len(b)/pageSize)*pageSize + int(offset)%pageSize
		copy(b[at:], patch)
		path := filepath.Join(t.TempDir(), "fuzzed.db")
		if err := os.WriteFile(path, b, fileMode); err != nil {
			t.Fatal(err)
		}
		if err := verify(path, 1); err != nil {
			return
		}
		if err := survey(t, path, true); err != nil {
			t.Errorf("verify passed a file and bbolt says %v", err)
		}
	})
}

func TestVerifyPassesWhatIsWhole(t *testing.T) {
	t.Parallel()
	for name, noFreelistSync := range map[string]bool{"segment": true, "state.db": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "whole.db")
			if err := os.WriteFile(path, sample(t, noFreelistSync), fileMode); err != nil {
				t.Fatal(err)
			}
			if err := verify(path, 2); err != nil {
				t.Errorf("got %v, want nil", err)
			}
		})
	}
}
