package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"
)

// Limits of an image's tree, for those who write one and those who check one.
const (
	maxEntries  = 200_000
	maxTreePath = 4095 // bytes
	maxTreeName = 255  // bytes
	maxDeep     = 64   // directories below each other
)

// Tree is a directory of the build host, read and normalised so that the same files give the same image on every machine:
// owner 0:0, mode 0755 for directories and for whatever its owner may execute and 0644 for the rest, one time for all, no
// extended attributes, hard links as copies. The module's user is not root of the image, so what it needs must be readable by
// all: modes are not kept. It is an fs.FS of what will be in the image.
type Tree struct {
	root  *os.Root
	epoch time.Time
	nodes map[string]*node // by slash path, "." is the root

	Files    int      // regular files
	Bytes    int64    // their sizes
	Stripped []string // files that lost a setuid or setgid bit, which has no effect in a sandbox
}

// node is one entry, as it will stand in the image.
type node struct {
	tree     *Tree
	path     string
	mode     fs.FileMode
	size     int64
	target   string  // of a symbolic link
	children []*node // by name
}

// OpenTree reads the tree under dir. epoch becomes the time of every entry. What an image cannot hold (device nodes, sockets,
// pipes) is an error that names it. The caller closes the tree after the image is written.
func OpenTree(dir string, epoch time.Time) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &Tree{root: root, epoch: epoch, nodes: make(map[string]*node)}
	top := &node{tree: t, path: ".", mode: fs.ModeDir | 0o755}
	t.nodes["."] = top
	if err := t.scan(top, 0); err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	return t, nil
}

// Close lets go of the directory.
func (t *Tree) Close() error { return t.root.Close() }

func (t *Tree) scan(dir *node, depth int) error {
	if depth > maxDeep {
		return fmt.Errorf("%s: more than %d directories deep", dir.path, maxDeep)
	}
	entries, err := fs.ReadDir(t.root.FS(), dir.path)
	if err != nil {
		return err
	}
	for _, entry := range entries { // sorted by name
		n, err := t.node(path.Join(dir.path, entry.Name()))
		if err != nil {
			return err
		}
		t.nodes[n.path] = n
		dir.children = append(dir.children, n)
		if n.mode.IsDir() {
			if err := t.scan(n, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Tree) node(p string) (*node, error) {
	if len(t.nodes) >= maxEntries || len(p) > maxTreePath || len(path.Base(p)) > maxTreeName {
		return nil, fmt.Errorf("%s: more than %d entries, or a path of more than %d bytes", p, maxEntries, maxTreePath)
	}
	info, err := t.root.Lstat(p)
	if err != nil {
		return nil, err
	}
	n := &node{tree: t, path: p}
	switch info.Mode().Type() {
	case 0:
		n.mode, n.size = 0o644, info.Size()
		if info.Mode().Perm()&0o100 != 0 {
			n.mode = 0o755
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Stripped = append(t.Stripped, p)
		}
		t.Files++
		t.Bytes += n.size
	case fs.ModeDir:
		n.mode = fs.ModeDir | 0o755
	case fs.ModeSymlink:
		n.mode = fs.ModeSymlink | 0o777
		if n.target, err = t.root.Readlink(p); err != nil {
			return nil, err
		}
		n.size = int64(len(n.target))
	default:
		return nil, fmt.Errorf("%s: a %v cannot be in an image: remove it, the sandbox makes its own devices", p, info.Mode().Type())
	}
	return n, nil
}

func (t *Tree) lookup(op, name string) (*node, error) {
	if n := t.nodes[name]; n != nil {
		return n, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Open opens a file at its first read.
func (t *Tree) Open(name string) (fs.File, error) {
	n, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	return &lazyFile{node: n}, nil
}

// Stat describes an entry; links are not followed.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	n, err := t.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// ReadDir lists a directory by name.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	list := make([]fs.DirEntry, len(n.children))
	for i, c := range n.children {
		list[i] = fs.FileInfoToDirEntry(c)
	}
	return list, nil
}

// ReadLink returns a symbolic link's target as it stands: it is resolved inside the sandbox only.
func (t *Tree) ReadLink(name string) (string, error) {
	n, err := t.lookup("readlink", name)
	if err != nil {
		return "", err
	}
	return n.target, nil
}

// Name and the methods below make a node an fs.FileInfo.
func (n *node) Name() string { return path.Base(n.path) }

func (n *node) Size() int64 { return n.size }

func (n *node) Mode() fs.FileMode { return n.mode }

func (n *node) ModTime() time.Time { return n.tree.epoch }

func (n *node) IsDir() bool { return n.mode.IsDir() }

// Sys is nil: there is nothing of the host's file in the image.
func (n *node) Sys() any { return nil }

// lazyFile is open between its first read and Close, and gives exactly the bytes that the scan counted, or an error.
type lazyFile struct {
	node *node
	file *os.File
	left int64
}

var errResized = errors.New("changed size while it was read: build from files that nobody writes to")

func (f *lazyFile) Stat() (fs.FileInfo, error) { return f.node, nil }

func (f *lazyFile) Read(p []byte) (int, error) {
	if f.file == nil {
		file, err := f.node.tree.root.Open(f.node.path)
		if err != nil {
			return 0, err
		}
		f.file, f.left = file, f.node.size
	}
	if f.left == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	n, err := f.file.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && f.left > 0:
		return n, fmt.Errorf("%s: %w", f.node.path, errResized)
	case err == nil && f.left == 0:
		var more [1]byte
		if k, _ := f.file.Read(more[:]); k > 0 {
			return n, fmt.Errorf("%s: %w", f.node.path, errResized)
		}
	}
	return n, err
}

func (f *lazyFile) Close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
