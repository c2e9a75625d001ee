package writelog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Node is a file or a folder of a Tree.
type Node struct {
	Mode fs.FileMode
	Data []byte
}

// Tree is a folder by path; "." is the folder itself.
type Tree map[string]Node

// ReadTree reads a folder. Only files and folders may be in it.
func ReadTree(dir string) (Tree, error) {
	t := Tree{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		node := Node{Mode: info.Mode()}
		switch {
		case info.IsDir():
		case info.Mode().IsRegular():
			if node.Data, err = os.ReadFile(path); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is neither a file nor a folder", path)
		}
		t[name] = node
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	return t, nil
}

// Write makes the tree on disk, in a folder that is made for it.
func (t Tree) Write(dir string) error {
	for _, name := range slices.Sorted(maps.Keys(t)) { // a folder comes before what is in it
		node, path := t[name], filepath.Join(dir, name)
		var err error
		if node.Mode.IsDir() {
			err = os.MkdirAll(path, node.Mode.Perm())
		} else {
			err = os.WriteFile(path, node.Data, node.Mode.Perm())
		}
		if err != nil {
			return fmt.Errorf("write tree: %w", err)
		}
	}
	return nil
}

// Compare plays the log whole and compares it with the folder that the process left, byte for byte: a write that the
// recorder did not see shows here. A file with an operation under way when the process was killed is left out.
func (l *Log) Compare(dir string) error {
	want, err := ReadTree(dir)
	if err != nil {
		return err
	}
	got, objects := l.build(func(op *Op) bool { return op.End > 0 }, nil)
	open := map[int]bool{}
	for i := range l.Ops {
		if op := &l.Ops[i]; op.End == 0 && op.Kind != Say && op.Kind != Flush {
			open[op.Object] = true
			open[op.From] = open[op.From] || op.Kind == Rename
		}
	}
	var errs []error
	for name, w := range want {
		g, there := got[name]
		if open[objects[name]] || open[objects[filepath.Dir(name)]] {
			continue
		}
		switch {
		case !there:
			errs = append(errs, fmt.Errorf("%s is on disk, and the log does not make it", name))
		case !bytes.Equal(g.Data, w.Data):
			at := 0
			for at < min(len(g.Data), len(w.Data)) && g.Data[at] == w.Data[at] {
				at++
			}
			errs = append(errs, fmt.Errorf("%s differs from byte %d on: %d bytes by the log, %d on disk", name, at, len(g.Data), len(w.Data)))
		}
	}
	for name := range got {
		if _, there := want[name]; !there && !open[objects[filepath.Dir(name)]] {
			errs = append(errs, fmt.Errorf("%s is not on disk, and the log makes it", name))
		}
	}
	return errors.Join(errs...)
}
