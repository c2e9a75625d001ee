package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sandpiper-edge/sandpiper/store"
	"github.com/sandpiper-edge/sandpiper/store/storetest"
)

func TestDocumentsAreThereAfterClose(t *testing.T) {
	t.Parallel()
	cfg := store.Config{Dir: t.TempDir()}
	s, stop := storetest.Start(t, cfg)
	large := bytes.Repeat([]byte("twin"), 100_000)
	for key, value := range map[string][]byte{
		"twin/b": []byte("b"), "twin/a": large, "twin/c": {}, "twins": []byte("other"), "twin/gone": []byte("x"),
	} {
		if err := s.Docs().Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Docs().Put(t.Context(), "twin/gone", nil); err != nil {
		t.Fatal(err)
	}
	stop()
	s, _ = storetest.Start(t, cfg)
	keys, err := s.Docs().Keys("twin/")
	if want := []string{"twin/a", "twin/b", "twin/c"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("keys: got %q, %v, want %q", keys, err, want)
	}
	for key, want := range map[string][]byte{"twin/a": large, "twin/c": {}, "twin/gone": nil, "never": nil} {
		got, err := s.Docs().Get(key)
		if err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%s: got %d bytes (nil %t), %v, want %d (nil %t)", key, len(got), got == nil, err, len(want), want == nil)
		}
	}
}

func TestDocumentsNeedNoRun(t *testing.T) {
	t.Parallel()
	s, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Docs().Put(t.Context(), "k", []byte("v")); err != nil {
		t.Error(err)
	}
	if got, err := s.Docs().Get("k"); string(got) != "v" || err != nil {
		t.Errorf("got %q, %v, want v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestUpdateChangesAllOrNothing(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	put := func(key, value string) {
		t.Helper()
		if err := s.Docs().Put(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	put("a", "1")
	put("b", "2")
	refused := errors.New("refused")
	err := s.Docs().Update(t.Context(), func(tx store.DocsTx) error {
		return errors.Join(tx.Put("a", []byte("9")), tx.Put("b", nil), refused)
	})
	if !errors.Is(err, refused) {
		t.Errorf("got %v, want what fn returned", err)
	}
	if got, _ := s.Docs().Get("a"); string(got) != "1" {
		t.Errorf("after a refused update: got a=%q, want 1", got)
	}
	err = s.Docs().Update(t.Context(), func(tx store.DocsTx) error {
		if err := errors.Join(tx.Put("c", []byte("3")), tx.Put("a", nil), tx.Put("b", []byte("4"))); err != nil {
			return err
		}
		b, err := tx.Get("b")
		keys, err2 := tx.Keys("")
		if string(b) != "4" || !slices.Equal(keys, []string{"b", "c"}) {
			t.Errorf("inside: got b=%q and keys %q, want its own changes", b, keys)
		}
		a, err3 := tx.Get("a")
		if a != nil {
			t.Errorf("inside: got a=%q, want it deleted", a)
		}
		return errors.Join(err, err2, err3)
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := s.Docs().Keys("")
	if err != nil || strings.Join(keys, " ") != "b c" {
		t.Errorf("after: got %q, %v, want b c", keys, err)
	}
}

func TestUpdateIsAloneWithItsDocuments(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	const writers, each = 8, 25
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				err := s.Docs().Update(t.Context(), func(tx store.DocsTx) error {
					n, err := tx.Get("n")
					return errors.Join(err, tx.Put("n", append(n, '.')))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got, _ := s.Docs().Get("n"); len(got) != writers*each {
		t.Errorf("got %d increments, want %d", len(got), writers*each)
	}
}

func TestAPanicInUpdateHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = s.Docs().Update(t.Context(), func(store.DocsTx) error { panic("mine") })
	}()
	if err := s.Docs().Put(t.Context(), "k", []byte("v")); err != nil {
		t.Errorf("afterwards: got %v, want a store that works", err)
	}
}

func TestUnfitDocumentsAreRefused(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	tests := map[string]struct {
		ctx   context.Context //nolint:containedctx // what the case is about
		key   string
		value []byte
		want  error // nil: any
	}{
		"no key":           {ctx: t.Context(), value: []byte("v")},
		"an endless key":   {ctx: t.Context(), key: strings.Repeat("k", store.MaxKey+1), value: []byte("v")},
		"too large":        {ctx: t.Context(), key: "k", value: make([]byte, store.MaxDoc+1), want: store.ErrTooLarge},
		"an ended context": {ctx: ended, key: "k", value: []byte("v"), want: context.Canceled},
	}
	s := storetest.Open(t, store.Config{})
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := s.Docs().Put(tt.ctx, tt.key, tt.value); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Put: got %v, want an error (%v)", err, tt.want)
			}
			err := s.Docs().Update(tt.ctx, func(tx store.DocsTx) error { return tx.Put(tt.key, tt.value) })
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Update: got %v, want an error (%v)", err, tt.want)
			}
		})
	}
}

func TestDocumentsHaveABound(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Config{})
	var err error
	n := 0
	for ; n < 40 && err == nil; n++ {
		err = s.Docs().Put(t.Context(), fmt.Sprint(n), make([]byte, 2<<20))
	}
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("after %d documents of 2 MiB: got %v, want ErrFull", n, err)
	}
	mustAppend(t, s, record("a", to("x", 0)))
	for range 20 { // each writes how far the lane is
		if _, err := s.Queue().Purge(t.Context(), "x"); err != nil {
			t.Errorf("positions in a full state.db: %v", err)
		}
		mustAppend(t, s, record("a", to("x", 0)))
	}
	if err := s.Docs().Put(t.Context(), "0", nil); err != nil {
		t.Errorf("deleting in a full state.db: got %v, want nil", err)
	}
	if err := s.Docs().Put(t.Context(), "small", []byte("v")); err != nil {
		t.Errorf("after room was made: got %v, want nil", err)
	}
}
