package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/erofs/go-erofs"
)

// CheckImage walks a plain EROFS image in Go before the kernel sees it: well-formed, within the limits of a tree, and no
// longer than size bytes. A signature says who made an image, not that it is harmless. It counts the entries.
func CheckImage(r io.ReaderAt, size int64) (entries int, err error) {
	_, entries, err = OpenImage(r, size)
	return entries, err
}

// OpenImage is CheckImage, and gives the tree that was checked.
func OpenImage(r io.ReaderAt, size int64) (tree fs.FS, entries int, err error) {
	bounded := io.NewSectionReader(r, 0, size)
	img, err := erofs.Open(bounded)
	if err != nil {
		return nil, 0, imageError("superblock", err)
	}
	err = fs.WalkDir(img, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return imageError(p, err)
		}
		if entries++; entries > maxEntries || len(p) > maxTreePath || strings.Count(p, "/") > maxDeep {
			return imageError(p, fmt.Errorf("more than %d entries, %d bytes of path or %d directories deep", maxEntries, maxTreePath, maxDeep))
		}
		if p != "." && !validEntryName(d.Name()) {
			return imageError(p, fmt.Errorf("name %q", d.Name()))
		}
		info, err := d.Info()
		if err != nil {
			return imageError(p, err)
		}
		if info.Mode().IsRegular() && info.Size() > size {
			return imageError(p, fmt.Errorf("%d bytes in an image of %d", info.Size(), size))
		}
		return nil
	})
	return img, entries, err
}

func imageError(where string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Code: ErrImage, Why: fmt.Sprintf("EROFS image: %q: %v: build it with sandpiper-bundle build", where, err), Err: err}
}

func validEntryName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= maxTreeName && !strings.ContainsAny(s, "/\x00")
}
