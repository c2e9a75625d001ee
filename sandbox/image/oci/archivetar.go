package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// tarFiles is an archive as a tar file, with where its files are in it.
type tarFiles struct {
	*os.File
	at map[string]*io.SectionReader
}

const maxArchived = 8192 // names in an archive

func openTar(name string) (*tarFiles, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t := &tarFiles{f, make(map[string]*io.SectionReader)}
	if err := t.index(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

func (t *tarFiles) index() error {
	info, err := t.Stat()
	if err != nil {
		return err
	}
	if form, err := sniff(io.NewSectionReader(t.File, 0, info.Size())); err == nil && form != plain {
		return bundle.Reject(bundle.ErrOCI, "is compressed, and an archive is read where it lies: decompress it first (gunzip, zstd -d)")
	}
	links := make(map[string]string)
	r := &tape{r: t.File}
	for count := 0; ; count++ {
		l, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &bundle.Error{Code: bundle.ErrOCI, Why: fmt.Sprintf("is no tar archive that can be read (%v): copy it again", err), Err: err}
		}
		if count == maxArchived {
			return bundle.Reject(bundle.ErrLimit, "has more than %d names", maxArchived)
		}
		switch l.kind {
		case tapeFile:
			offset, err := t.Seek(0, io.SeekCurrent) // the tape reads whole headers and nothing ahead
			if err == nil {
				_, err = t.Seek(l.size+r.pad, io.SeekCurrent)
			}
			if err != nil {
				return err
			}
			if offset+l.size > info.Size() {
				return bundle.Reject(bundle.ErrOCI, "ends within %.100q: copy it again", l.name)
			}
			r.left, r.pad = 0, 0
			t.at[path.Clean(l.name)] = io.NewSectionReader(t.File, offset, l.size)
		case tapeSymlink: // of Docker, for a layer that two images share
			links[path.Clean(l.name)] = path.Join(path.Dir(l.name), l.link)
		}
	}
	for name, target := range links {
		if s := t.at[target]; s != nil && t.at[name] == nil {
			t.at[name] = s
		}
	}
	return nil
}

func (t *tarFiles) open(name string) (io.ReadCloser, error) {
	s := t.at[path.Clean(name)]
	if s == nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(s, 0, s.Size())), nil
}
