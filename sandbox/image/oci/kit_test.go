package oci_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/erofs/go-erofs"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// here is the machine of the tests.
var here = oci.Machine{Arch: []string{ocitest.Arch}, Variant: 7}

const limit = 64 << 20

// merge reads the one image of a layout and merges it.
func merge(t testing.TB, dir string) (*oci.Image, oci.Merged, *os.File, error) {
	t.Helper()
	a, err := oci.OpenArchive(dir)
	if err != nil {
		return nil, oci.Merged{}, nil, err
	}
	defer func() { _ = a.Close() }()
	img, err := a.Image("", here, limit)
	if err != nil {
		return nil, oci.Merged{}, nil, err
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	merged, err := oci.Merge(t.Context(), img.Layers, f, oci.Limits{Bytes: limit}, nil)
	return img, merged, f, err
}

// listing prints an image: a line for each entry with type and permissions, owner, and content or target.
func listing(t testing.TB, f *os.File) string {
	t.Helper()
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	err = fs.WalkDir(img, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*erofs.Stat)
		sticky := ""
		if info.Mode()&0o1000 != 0 { // the reader has no other word for it
			sticky = " sticky"
		}
		fmt.Fprintf(&lines, "%v%s %d:%d %s", info.Mode(), sticky, st.UID, st.GID, p)
		switch {
		case info.Mode().IsRegular():
			content, err := fs.ReadFile(img, p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&lines, " = %.40s", content)
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := img.(interface {
				ReadLink(name string) (string, error)
			}).ReadLink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&lines, " -> %s", target)
		}
		for name, value := range st.Xattrs {
			fmt.Fprintf(&lines, " [%s=%s]", name, value)
		}
		lines.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines.String()
}
