package ocitest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Floods are rows F8 and G3: layers that are small, and are far too much when they are read.
func Floods(t testing.TB) []Hostile {
	t.Helper()
	var rows []Hostile
	for row, c := range map[string]struct {
		mediaType string
		make      func(t testing.TB) []byte
	}{
		"F8 10 million entries":                {TypeTar + "+gzip", emptyFiles(101_000, func(i int) string { return fmt.Sprintf("some/dir/f%d", i) })}, // as good as 10 million: nobody reads further
		"F8 names of 10 MB":                    {TypeTar + "+gzip", emptyFiles(101_000, func(i int) string { return fmt.Sprintf("%0100d", i) })},
		"F8 directories that nobody describes": {TypeTar + "+gzip", emptyFiles(50_000, func(i int) string { return fmt.Sprintf("%d/%sx", i, strings.Repeat("d/", 40)) })},
		"F8 one name again and again": {TypeTar, func(testing.TB) []byte {
			return bytes.Repeat(Raw("a", '0', "00000000000\x00", nil), 101_000)
		}},
		"G3 gzip bomb": {TypeTar + "+gzip", func(t testing.TB) []byte {
			t.Helper()
			var buf bytes.Buffer
			z := gzip.NewWriter(&buf)
			_, _ = z.Write(Raw("a", '0', "07777777777\x00", nil))
			zeros := make([]byte, 1<<20)
			for range 200 {
				_, _ = z.Write(zeros)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			return buf.Bytes()
		}},
		"G3 zstd bomb": {TypeTar + "+zstd", func(t testing.TB) []byte {
			t.Helper()
			var buf bytes.Buffer
			z, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = z.Write(Raw("a", '0', "07777777777\x00", nil))
			zeros := make([]byte, 1<<20)
			for range 200 {
				_, _ = z.Write(zeros)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			return buf.Bytes()
		}},
	} {
		blob := c.make(t)
		l := NewLayout(t)
		config := l.JSON(TypeConfig, Config(Object{}, Sum(blob)))
		l.Index(l.JSON(TypeManifest, Object{"schemaVersion": 2, "config": config, "layers": []Object{l.Blob(c.mediaType, blob)}}))
		rows = append(rows, Hostile{row, l.Path, bundle.ErrLimit})
	}
	return rows
}

// emptyFiles writes the layer of so many empty files, compressed.
func emptyFiles(n int, name func(i int) string) func(testing.TB) []byte {
	return func(t testing.TB) []byte {
		t.Helper()
		var buf bytes.Buffer
		z, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			_, _ = z.Write(Raw(name(i), '0', "00000000000\x00", nil))
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
}
