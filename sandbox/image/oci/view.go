package oci

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/erofs/go-erofs"
)

// view is a finished tree as the image writer sees it: an fs.FS whose files are all zeros.
type view struct {
	tree *tree
	hole *hole
}

// entry is one node of a view: an fs.File, its fs.FileInfo and its fs.DirEntry.
type entry struct {
	view *view
	at   int32
	left int64
}

// resolve walks to a node by its path, which comes from the walk over this very view.
func (v *view) resolve(op, name string) (int32, error) {
	at := int32(0)
	if name == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		c, ok := v.tree.children[childKey{at, part}]
		if !ok || v.tree.nodes[c].kind == ghost {
			return none, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		at = c
	}
	return at, nil
}

// Open gives zeros in the place of a file's content.
func (v *view) Open(name string) (fs.File, error) {
	at, err := v.resolve("open", name)
	if err != nil {
		return nil, err
	}
	return &entry{v, at, v.tree.nodes[at].size}, nil
}

// Stat describes a node; links are not followed.
func (v *view) Stat(name string) (fs.FileInfo, error) {
	at, err := v.resolve("stat", name)
	if err != nil {
		return nil, err
	}
	return &entry{view: v, at: at}, nil
}

// ReadDir lists a directory by name.
func (v *view) ReadDir(name string) ([]fs.DirEntry, error) {
	at, err := v.resolve("readdir", name)
	if err != nil {
		return nil, err
	}
	var list []fs.DirEntry
	for c := v.tree.nodes[at].first; c != none; c = v.tree.nodes[c].next {
		list = append(list, &entry{view: v, at: c})
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// ReadLink returns a symbolic link's target as it stands.
func (v *view) ReadLink(name string) (string, error) {
	at, err := v.resolve("readlink", name)
	if err != nil {
		return "", err
	}
	return v.tree.nodes[at].target, nil
}

func (e *entry) node() *node { return &e.view.tree.nodes[e.at] }

// Name and the methods below make an entry what the writer asks for.
func (e *entry) Name() string {
	if e.at == 0 {
		return "."
	}
	return e.node().name
}

func (e *entry) Size() int64 {
	if n := e.node(); n.kind == symlink {
		return int64(len(n.target))
	}
	return e.node().size
}

func (e *entry) Mode() fs.FileMode { return e.node().fileMode() }

func (e *entry) ModTime() time.Time { return time.Unix(e.node().sec, int64(e.node().nsec)) }

func (e *entry) IsDir() bool { return e.node().kind == dir }

func (e *entry) Type() fs.FileMode { return e.Mode().Type() }

func (e *entry) Info() (fs.FileInfo, error) { return e, nil }

func (e *entry) Stat() (fs.FileInfo, error) { return e, nil }

func (e *entry) Close() error { return nil }

// Sys gives the writer what fs.FileInfo has no words for.
func (e *entry) Sys() any {
	n := e.node()
	links := 1
	if n.kind == dir {
		links = 2
		for c := n.first; c != none; c = e.view.tree.nodes[c].next {
			if e.view.tree.nodes[c].kind == dir {
				links++
			}
		}
	}
	return &erofs.Stat{Mode: e.Mode(), Size: e.Size(), UID: n.uid, GID: n.gid, Mtime: uint64(n.sec), MtimeNs: n.nsec, Nlink: links, Xattrs: n.xattrs}
}

// Read gives zeros, and tells the output that they are to be a hole.
func (e *entry) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), e.left)]
	clear(p)
	e.left -= int64(len(p))
	if len(p) > 0 {
		e.view.hole.zeros = &p[0]
	}
	return len(p), nil
}

func (n *node) fileMode() fs.FileMode {
	mode := fs.FileMode(n.mode & 0o777)
	if n.mode&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	switch n.kind {
	case dir:
		mode |= fs.ModeDir
	case symlink:
		mode |= fs.ModeSymlink
	case file, ghost:
	}
	return mode
}

// hole writes to a file, but leaves out zeros that were just read from a view: contents come later.
type hole struct {
	out   io.WriterAt
	at    int64
	size  int64 // the highest position
	zeros *byte // the first byte of the buffer that a view filled last
}

func (h *hole) Write(p []byte) (int, error) {
	if len(p) > 0 && &p[0] != h.zeros {
		if _, err := h.out.WriteAt(p, h.at); err != nil {
			return 0, err
		}
	}
	h.zeros = nil
	h.at += int64(len(p))
	h.size = max(h.size, h.at)
	return len(p), nil
}

// Seek is only ever asked to go to the start.
func (h *hole) Seek(offset int64, whence int) (int64, error) {
	if offset < 0 || whence != io.SeekStart {
		return 0, fmt.Errorf("seek to %d from %d", offset, whence)
	}
	h.at = offset
	return offset, nil
}
