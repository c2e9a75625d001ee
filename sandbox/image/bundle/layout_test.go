package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// imageOfTree writes a directory as an image and reads it back.
func imageOfTree(t *testing.T, dir string) ([]byte, fs.FS) {
	t.Helper()
	tree, err := bundle.OpenTree(dir, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tree.Close() }()
	var out bytes.Buffer
	if err := tree.WriteImage(&out); err != nil {
		t.Fatal(err)
	}
	img, _, err := bundle.OpenImage(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), img
}

func TestALineMoreInOneFileMovesNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 2000 {
		name := filepath.Join(dir, fmt.Sprintf("d%d/e%d/f%d", i%20, i%7, i))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, noise(i*7%9000, byte(i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := imageOfTree(t, dir)
	conf := filepath.Join(dir, "d5/e3/f45") // of 315 bytes
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, append(text, "\n# one line more, as a site has it\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	after, img := imageOfTree(t, dir)
	if len(before) != len(after) {
		t.Fatalf("the image has %d bytes, had %d", len(after), len(before))
	}
	changed := 0
	for at := 0; at < len(after); at += 4096 {
		if !bytes.Equal(before[at:at+4096], after[at:at+4096]) {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d blocks are others, want one", changed)
	}
	if got, err := fs.ReadFile(img, "d5/e3/f45"); err != nil || len(got) != len(text)+35 {
		t.Errorf("the file has %d bytes, %v", len(got), err)
	}
}

func TestEveryFormOfEntryReadsBackFromTheImage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := make(map[string]string)
	for _, size := range []int{0, 1, 31, 32, 33, 2015, 2016, 2017, 4063, 4064, 4065, 4096, 4097, 300_000} {
		name := fmt.Sprint("size", size)
		want[name] = string(noise(size, byte(size)))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(want[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, length := range []int{1, 2000, 2064, 4000, 4095} {
		if err := os.Symlink(strings.Repeat("x", length), filepath.Join(dir, fmt.Sprint("link", length))); err != nil {
			t.Fatal(err)
		}
	}
	for _, count := range []int{0, 1, 60, 150, 900} { // of entries with long names, in one block and in many
		for i := range max(count, 1) {
			name := filepath.Join(dir, fmt.Sprint("dir", count), strings.Repeat("n", 40)+fmt.Sprint(i))
			if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				t.Fatal(err)
			}
			if count == 0 {
				break
			}
			if err := os.Mkdir(name, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, img := imageOfTree(t, dir)
	for name, content := range want {
		if got, err := fs.ReadFile(img, name); err != nil || string(got) != content {
			t.Errorf("%s: %d bytes, %v, want %d", name, len(got), err, len(content))
		}
	}
	names := 0
	err := fs.WalkDir(img, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		names++
		host, err := os.Lstat(filepath.Join(dir, p))
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && (info.Mode().Type() != host.Mode().Type() || host.Mode()&fs.ModeSymlink != 0 && info.Size() != host.Size()) {
			err = errors.New("another kind")
		}
		return err
	})
	if err != nil || names != 1+len(want)+5+5+1+60+150+900 {
		t.Errorf("%d entries, %v", names, err)
	}
}
