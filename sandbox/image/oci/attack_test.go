package oci_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// patience is how long a refusal may take: 5 s on a machine that does nothing else, more where many tests run.
const patience = 20 * time.Second

func TestHostileLayersAreRefused(t *testing.T) {
	t.Parallel()
	for _, h := range ocitest.Layers(t) {
		t.Run(h.Row, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, _, f, err := merge(t, h.Path)
			if got := bundle.CodeOf(err); got != h.Want {
				t.Errorf("got %q (%v), want %s", got, err, h.Want)
			}
			if strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("got %q, want one line", err)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("took %v, want less than %v", took, patience)
			}
			if info, serr := f.Stat(); serr != nil || info.Size() != 0 {
				t.Errorf("got %d bytes written, want none: %v", info.Size(), serr)
			}
		})
	}
}

func TestFloodsAreCutShort(t *testing.T) {
	for _, h := range ocitest.Floods(t) {
		t.Run(h.Row, func(t *testing.T) {
			a, err := oci.OpenArchive(h.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			img, err := a.Image("", here, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(h.Path + "/image")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err = oci.Merge(t.Context(), img.Layers, f, oci.Limits{Bytes: 1 << 30}, nil)
			if got := bundle.CodeOf(err); got != bundle.ErrLimit {
				t.Errorf("got %q (%v), want %s", got, err, bundle.ErrLimit)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("took %v, want less than %v", took, patience)
			}
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
				t.Errorf("the heap grew by %d bytes", grown)
			}
		})
	}
}

func TestBrokenLayersAreRefused(t *testing.T) {
	t.Parallel()
	layer := ocitest.Tar(t, ocitest.File("a", "content"))
	other := ocitest.Tar(t, ocitest.File("a", "CONTENT"))
	for _, h := range ocitest.Broken(t) {
		t.Run(h.Row, func(t *testing.T) {
			t.Parallel()
			if _, _, _, err := merge(t, h.Path); bundle.CodeOf(err) != h.Want {
				t.Errorf("got %v, want %s", err, h.Want)
			}
		})
	}
	t.Run("H1 a layer exchanged between the two readings", func(t *testing.T) {
		t.Parallel()
		l := ocitest.NewLayout(t)
		l.Index(l.Image(ocitest.Object{}, layer))
		a, err := oci.OpenArchive(l.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		img, err := a.Image("", here, limit)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(l.Path + "/image")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		exchange := func(int64) error {
			l.File("blobs/sha256/"+img.Layers[0].Blob.Digest.Hex(), ocitest.Gzip(t, other))
			return nil
		}
		if _, err := oci.Merge(t.Context(), img.Layers, f, oci.Limits{}, exchange); bundle.CodeOf(err) != bundle.ErrDigest {
			t.Errorf("got %v, want %s", err, bundle.ErrDigest)
		}
	})
}
