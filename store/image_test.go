package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// image is a folder's files by their path in it.
type image map[string][]byte

// takeImage reads a store's folder as it is, without its lock.
func takeImage(tb testing.TB, dir string) image {
	tb.Helper()
	m := image{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		b, err := os.ReadFile(path)
		m[strings.TrimPrefix(path, dir+"/")] = b
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// write makes a folder of an image.
func (m image) write(tb testing.TB, dir string) {
	tb.Helper()
	for name, b := range m {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, b, fileMode); err != nil {
			tb.Fatal(err)
		}
	}
}

func copyDir(tb testing.TB, from, to string) {
	tb.Helper()
	takeImage(tb, from).write(tb, to)
}
