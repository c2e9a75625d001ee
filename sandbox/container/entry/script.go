package entry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The steps, as script.h numbers them.
const (
	doJoin = iota + 1
	doCgroup
	doLoopback
	doRoot
	doAttach
	doMount
	doLink
	doMask
	doReadOnly
	doSeal
	doPivot
	doHostname
	doNull
	doBecome
	doWritable
	doRun
)

// Script is a list of steps. The zero value is empty. The first mistake in
// making one is kept and returned by [Child.Play].
type Script struct {
	steps []byte
	trees []*os.File
	err   error
}

// Close closes the descriptors that the script holds.
func (s *Script) Close() {
	for _, f := range s.trees {
		_ = f.Close()
	}
	s.trees = nil
}

func (s *Script) num(values ...uint32) {
	for _, v := range values {
		s.steps = binary.NativeEndian.AppendUint32(s.steps, v)
	}
}

func (s *Script) text(values ...string) {
	for _, v := range values {
		if strings.ContainsRune(v, 0) {
			s.err = errors.Join(s.err, fmt.Errorf("%q holds a NUL byte", v))
		}
		s.num(uint32(len(v) + 1))
		s.steps = append(append(s.steps, v...), 0)
	}
}

// tree hands a descriptor over.
func (s *Script) tree(f *os.File) uint32 {
	s.trees = append(s.trees, f)
	return uint32(len(s.trees) - 1)
}

// Join steps into groups of cgroup version 1, given by their files "tasks". The
// script closes them.
func (s *Script) Join(tasks ...*os.File) {
	s.num(doJoin, uint32(len(tasks)))
	for _, f := range tasks {
		s.num(s.tree(f))
	}
}

// CgroupNamespace makes the group the child is in the root of what it sees.
func (s *Script) CgroupNamespace() { s.num(doCgroup) }

// Loopback brings up the loopback device of the network namespace.
func (s *Script) Loopback() { s.num(doLoopback) }

// Root mounts a tree at path, a directory that everybody can reach; it becomes
// "/" with [Script.Pivot]. The script closes the tree.
func (s *Script) Root(tree *os.File, path string) {
	s.num(doRoot, s.tree(tree))
	s.text(path)
}

// Attach puts a tree at a path inside; what is missing of the path is made. A
// link on the way is an error. The script closes the tree.
func (s *Script) Attach(tree *os.File, target string, directory bool) {
	kind := uint32(0)
	if directory {
		kind = 1
	}
	s.num(doAttach, s.tree(tree), kind)
	s.text(target)
}

// Mount makes a file system of the kernel's own and puts it at a path inside.
// Options are "key=value" or "flag", as mount(8) has them; attributes are
// MOUNT_ATTR_*.
func (s *Script) Mount(kind, target string, attributes uint32, options ...string) {
	s.num(doMount)
	s.text(kind, target)
	s.num(attributes, uint32(len(options)))
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		s.text(key, value)
	}
}

// Link makes a symbolic link inside; one that is there stays.
func (s *Script) Link(text, place string) {
	s.num(doLink)
	s.text(text, place)
}

// Mask hides a path, if it is there.
func (s *Script) Mask(path string) {
	s.num(doMask)
	s.text(path)
}

// ReadOnly makes a path and all below it read-only, if it is there.
func (s *Script) ReadOnly(path string) {
	s.num(doReadOnly)
	s.text(path)
}

// Seal sets MOUNT_ATTR_* of the mount at a path, once it has been filled.
func (s *Script) Seal(path string, attributes uint32) {
	s.num(doSeal)
	s.text(path)
	s.num(attributes)
}

// Pivot makes the root "/" and leaves the host's behind.
func (s *Script) Pivot() { s.num(doPivot) }

// Hostname sets the host name.
func (s *Script) Hostname(name string) {
	s.num(doHostname)
	s.text(name)
}

// Null gives the streams (bit n is descriptor n) a null device of the sandbox's.
func (s *Script) Null(streams uint32) { s.num(doNull, streams) }

// Become takes the user and gives up every capability and the way to any.
func (s *Script) Become(uid, gid int, groups []int, cwd string) {
	s.num(doBecome, uint32(uid), uint32(gid), uint32(len(groups)))
	for _, g := range groups {
		s.num(uint32(g))
	}
	s.text(cwd)
}

// Writable has Landlock refuse every write beyond these paths and the streams,
// whatever the mounts allow. A kernel without it (before 5.19, or not asked to
// use it) skips the step.
func (s *Script) Writable(paths ...string) {
	s.num(doWritable, uint32(len(paths)))
	s.text(paths...)
}

// Run ends the script: the child answers, waits until its gate is opened, and
// becomes the program under a seccomp filter (none when empty).
func (s *Script) Run(args, env []string, filter []unix.SockFilter) {
	s.num(doRun)
	for _, list := range [][]string{args, env} {
		s.num(uint32(len(list)))
		s.text(list...)
	}
	s.num(uint32(len(filter) * sockFilterSize))
	for _, f := range filter {
		s.steps = binary.NativeEndian.AppendUint16(s.steps, f.Code)
		s.steps = append(s.steps, f.Jt, f.Jf)
		s.num(f.K)
	}
}

// sockFilterSize is that of struct sock_filter.
const sockFilterSize = 8

// maxScript bounds a script as entry.c does: arguments and environment are most
// of one, and the kernel takes less.
const maxScript = 8 << 20

func (s *Script) check() error {
	switch {
	case s.err != nil:
		return s.err
	case len(s.steps) > maxScript:
		return fmt.Errorf("arguments and environment are too long: %d bytes of at most %d", len(s.steps), maxScript)
	case len(s.trees) > maxTrees:
		return fmt.Errorf("too many mounts: %d of at most %d", len(s.trees), maxTrees)
	}
	return nil
}

// maxTrees is the kernel's bound on descriptors in one message.
const maxTrees = 253
