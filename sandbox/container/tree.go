package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// tree is a skeleton of files that lies over an image, or stands alone when
// image is empty. What the image has already is left to it; a directory that
// must be repeated looks like the image's. The first error stays in err, and
// nothing is done after it.
type tree struct {
	dir, image string
	files      []string // written, as paths inside
	missing    []string // what the image lacks, as paths inside
	err        error
}

// resolve is where path leads inside, with every link of the image (or of the
// skeleton) followed within it.
func (t *tree) resolve(path string) string {
	base := t.image
	if base == "" {
		base = t.dir
	}
	if t.err != nil {
		return path
	}
	full, err := securejoin.SecureJoin(base, path)
	if err != nil {
		t.err = fmt.Errorf("%s: %w", path, err)
		return path
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(full, base), "/")
}

// has tells what the image has there.
func (t *tree) has(place string) (fs.FileInfo, bool) {
	if t.image == "" {
		return nil, false
	}
	st, err := os.Lstat(filepath.Join(t.image, place))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && t.err == nil {
		t.err = err
	}
	return st, err == nil
}

// mkdir makes a directory and those above it.
func (t *tree) mkdir(path string) {
	place := t.resolve(path)
	if t.err != nil || place == "/" {
		return
	}
	if st, ok := t.has(place); ok {
		if !st.IsDir() {
			t.err = fmt.Errorf("%s must be a directory, and the image has a file there", path)
		}
		return
	}
	t.missing = append(t.missing, place)
	t.repeat(place)
}

// repeat makes place and its parents in the skeleton, each like the image's.
func (t *tree) repeat(place string) {
	done := "/"
	for name := range strings.SplitSeq(strings.Trim(place, "/"), "/") {
		if t.err != nil || name == "" {
			return
		}
		done = filepath.Join(done, name)
		full := filepath.Join(t.dir, done)
		if err := os.Mkdir(full, 0o755); err != nil {
			if !errors.Is(err, fs.ErrExist) {
				t.err = err
			}
			continue
		}
		st, ok := t.has(done)
		if !ok {
			continue
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			t.keep(os.Chown(full, int(sys.Uid), int(sys.Gid)))
		}
		t.keep(os.Chmod(full, st.Mode()&(fs.ModePerm|fs.ModeSticky|fs.ModeSetgid)))
	}
}

func (t *tree) keep(err error) {
	if t.err == nil {
		t.err = err
	}
}

// touch makes an empty file to mount on.
func (t *tree) touch(path string) {
	place := t.resolve(path)
	if t.err != nil {
		return
	}
	if st, ok := t.has(place); ok {
		if st.IsDir() {
			t.err = fmt.Errorf("%s must be a file, and the image has a directory there", path)
		}
		return
	}
	t.missing = append(t.missing, place)
	t.repeat(filepath.Dir(place))
	t.create(place, "")
}

// write makes a file that replaces the image's, even where that is a link.
func (t *tree) write(path, content string) {
	place := filepath.Join(t.resolve(filepath.Dir(path)), filepath.Base(path))
	if t.err != nil {
		return
	}
	t.files = append(t.files, place)
	t.missing = append(t.missing, place)
	t.repeat(filepath.Dir(place))
	t.create(place, content)
}

func (t *tree) create(place, content string) {
	if t.err != nil {
		return
	}
	f, err := os.OpenFile(filepath.Join(t.dir, place), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		t.err = err
		return
	}
	_, err = f.WriteString(content)
	t.keep(errors.Join(err, f.Chmod(0o644), f.Close()))
}

// link makes a symbolic link; only for a tree without an image.
func (t *tree) link(target, path string) {
	if t.err != nil {
		return
	}
	t.repeat(filepath.Dir(path))
	t.keep(os.Symlink(target, filepath.Join(t.dir, path)))
}
