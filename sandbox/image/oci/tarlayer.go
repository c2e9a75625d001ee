package oci

import (
	"context"
	"fmt"
	"io"
	"os"
)

// IsArchive reports whether a directory or a tar file is what [OpenArchive] takes: an OCI layout, or what `docker save` writes.
func IsArchive(name string) bool {
	a, err := OpenArchive(name)
	if err != nil {
		return false
	}
	defer func() { _ = a.Close() }()
	for _, index := range []string{"index.json", "manifest.json"} {
		if f, err := a.files.open(index); err == nil {
			_ = f.Close()
			return true
		}
	}
	return false
}

// TarLayer is a tar file, plain or compressed by gzip or zstd, as the one layer of an image. It reads the file once. limit bounds its plain
// bytes.
func TarLayer(ctx context.Context, name string, limit int64) (Layer, error) {
	l := Layer{Open: func() (io.ReadCloser, error) { return os.Open(name) }}
	f, err := l.Open()
	if err != nil {
		return Layer{}, err
	}
	l.form, err = sniff(f)
	_ = f.Close()
	if err != nil {
		return Layer{}, fmt.Errorf("%s: %w", name, err)
	}
	s, err := l.stream(ctx, limit)
	if err != nil {
		return Layer{}, err
	}
	defer s.close()
	if _, err := io.Copy(io.Discard, s.out); err != nil {
		return Layer{}, s.broken(err)
	}
	l.DiffID = s.out.digest()
	return l, nil
}
