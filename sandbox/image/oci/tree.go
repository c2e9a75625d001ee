package oci

import (
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// kind of a node. A ghost has no entry of its own: something below it is hidden, or wanted, or nothing came of it yet.
type kind uint8

const (
	ghost kind = iota
	dir
	file
	symlink
)

// inode is what an entry says of itself. There may be a hundred thousand, so what few have lies apart.
type inode struct {
	kind     kind
	mode     uint16 // permissions and sticky bit
	uid, gid uint32
	nsec     uint32
	sec      int64
	size     int64 // of a file
	more     *more
	source   int32 // of a file: index in tree.sources, or none
}

// more is what few entries have.
type more struct {
	target string // of a symbolic link
	xattrs map[string]string
}

func (in *inode) target() string {
	if in.more == nil {
		return ""
	}
	return in.more.target
}

func (in *inode) xattrs() map[string]string {
	if in.more == nil {
		return nil
	}
	return in.more.xattrs
}

// node is a name in the tree.
type node struct {
	inode

	parent int32
	first  int32 // child, or none
	next   int32 // sibling, or none
	name   string

	layer  int16 // that the entry came from
	cut    int16 // of this name and what is below it, layers under this one are hidden
	opaque int16 // of what is below it, layers under this one are hidden
	wanted bool  // a ghost that has an entry below it: it is a directory
}

// none is no node and no source.
const none = -1

// source is a file's content: an entry of a layer.
type source struct {
	layer int16
	entry int32 // its number in the layer's tar
}

// tree is what the layers say, from the top one down to the one that was read last. Node 0 is the root.
type tree struct {
	nodes    nodes
	sources  []source
	limits   Limits
	entries  int // seen, hidden ones too
	held     int // bytes, see hold
	stripped Stripped
}

// Stripped counts what was removed from entries because it has no effect in a sandbox.
type Stripped struct {
	SetID  int `json:"set_id,omitempty"` // entries that lost a set-user-id or set-group-id bit
	Xattrs int `json:"xattrs,omitempty"` // extended attributes
}

func newTree(limits Limits) *tree {
	t := &tree{nodes: newNodes(), limits: limits}
	t.nodes.add(node{inode: implicit(), parent: none, first: none, next: none, layer: -1, cut: -1, opaque: -1, wanted: true})
	t.nodes.at(0).kind = ghost
	return t
}

// implicit is a directory that no layer describes.
func implicit() inode { return inode{kind: dir, mode: 0o755, source: none} }

// split checks the path of an entry and gives its names, in the list into if that is long enough. The root has none.
func split(name string, into []string) ([]string, error) {
	reject := func(why string) error {
		return bundle.Reject(bundle.ErrPath, "a layer has the path %.100q, which %s: build the image again", name, why)
	}
	switch {
	case name == "":
		return nil, reject("is empty")
	case len(name) > maxPath:
		return nil, reject("is too long")
	case name == "/": // as umoci calls the root
		return nil, nil
	case name[0] == '/':
		return nil, reject("is absolute")
	case strings.ContainsRune(name, 0):
		return nil, reject("holds a NUL")
	}
	parts := into[:0]
	for part := range strings.SplitSeq(strings.TrimRight(name, "/"), "/") {
		switch {
		case part == ".":
			continue
		case part == "..":
			return nil, reject("leads out of its directory")
		case part == "":
			return nil, reject("has an empty name in it")
		case len(part) > maxName:
			return nil, reject("has a name of more than 255 bytes in it")
		}
		parts = append(parts, part)
	}
	if len(parts) > maxDeep {
		return nil, bundle.Reject(bundle.ErrLimit, "a layer has a path of %d directories below each other, up to %d are taken", len(parts), maxDeep)
	}
	return parts, nil
}

// hold notes bytes that stay in memory beside the names of nodes, and looks at all bounds. Directories that no layer describes count as
// entries: a path may have many.
func (t *tree) hold(bytes int) error {
	t.held += bytes
	if max(t.entries, int(t.nodes.length)) > t.limits.Entries || t.held+t.nodes.bytes > maxHeld {
		return bundle.Reject(bundle.ErrLimit, "the image has more than %d entries, or %d bytes of names, targets and attributes: make it smaller", t.limits.Entries, maxHeld)
	}
	return nil
}

// child finds or makes the node of a name.
func (t *tree) child(parent int32, name string) int32 {
	if i := t.nodes.find(parent, name); i != none {
		return i
	}
	return t.nodes.attach(parent, name)
}

// replace gives the name of node i a fresh node: what was below it is gone.
func (t *tree) replace(i int32) int32 {
	old := t.nodes.at(i)
	before := &t.nodes.at(old.parent).first
	for *before != i {
		before = &t.nodes.at(*before).next
	}
	*before = old.next
	fresh := t.nodes.attach(old.parent, old.name)
	t.nodes.at(fresh).cut = old.cut
	return fresh
}

// descend walks from the root to the node that parts name, making ghosts. hidden says that something above layer hides it. wanted is
// set for entries, not for what hides others.
func (t *tree) descend(parts []string, layer int16, wanted bool) (at int32, hidden bool, err error) {
	for depth, part := range parts {
		n := t.nodes.at(at)
		if n.opaque > layer || n.cut > layer {
			return at, true, nil
		}
		if n.kind != dir && n.kind != ghost {
			if n.layer > layer {
				return at, true, nil
			}
			return at, false, bundle.Reject(bundle.ErrPath, "a layer has an entry below %.100q, which is no directory there: build the image again", strings.Join(parts[:depth], "/"))
		}
		n.wanted = n.wanted || wanted
		at = t.child(at, part)
	}
	return at, t.nodes.at(at).cut > layer, nil
}

// put enters an entry of a layer unless it is hidden, and says where. A hidden entry is at none.
func (t *tree) put(parts []string, layer int16, in inode) (at int32, err error) {
	if len(parts) > 0 {
		// An entry that is hidden must not make directories of what hides it.
		if _, hidden, err := t.descend(parts, layer, false); hidden || err != nil {
			return none, err
		}
	}
	at, _, err = t.descend(parts, layer, true)
	if err != nil {
		return none, err
	}
	n := t.nodes.at(at)
	switch {
	case n.kind != ghost && n.layer > layer:
		return none, nil
	case n.kind == ghost && n.wanted && in.kind != dir:
		return none, bundle.Reject(bundle.ErrPath, "a layer has entries below %.100q, which is no directory in the layer under it: build the image again", strings.Join(parts, "/"))
	case n.kind == dir && n.layer == layer && in.kind != dir: // the last entry of a name counts
		at = t.replace(at)
		n = t.nodes.at(at)
	case at == 0 && in.kind != dir:
		return none, bundle.Reject(bundle.ErrPath, "a layer's root is no directory: build the image again")
	}
	if in.kind == dir && n.kind != ghost && n.kind != dir { // first something else, then a directory: it is a new one
		n.cut = max(n.cut, layer)
	}
	n.inode, n.layer = in, layer
	return at, nil
}

// hide enters a whiteout: what the layers under this one have there is gone.
// Below what its own layer made a file there is nothing left to hide: umoci writes such whiteouts.
func (t *tree) hide(parts []string, layer int16) {
	at, hidden, err := t.descend(parts, layer, false)
	if err == nil && !hidden {
		t.nodes.at(at).cut = max(t.nodes.at(at).cut, layer)
	}
}

// hideBelow enters an opaque directory.
func (t *tree) hideBelow(parts []string, layer int16) {
	at, hidden, err := t.descend(parts, layer, false)
	if err == nil && !hidden {
		t.nodes.at(at).opaque = max(t.nodes.at(at).opaque, layer)
	}
}

// find looks an entry of a layer up by its path, as a hard link's target.
func (t *tree) find(parts []string, layer int16) int32 {
	var at int32
	for _, part := range parts {
		if at = t.nodes.find(at, part); at == none {
			return none
		}
	}
	if n := t.nodes.at(at); n.kind == ghost || n.layer != layer {
		return none
	}
	return at
}

// finish makes directories of the ghosts that need to be, drops the others, and checks what the image will hold.
func (t *tree) finish() error {
	var total int64
	for i := range t.nodes.length {
		n := t.nodes.at(i)
		if n.kind == ghost && n.wanted {
			n.inode = implicit()
		}
		if n.kind == file {
			total += (n.size + blockSize - 1) / blockSize * blockSize
		}
		if total > t.limits.Bytes {
			return bundle.Reject(bundle.ErrLimit, "the image's files have more than %d bytes, hard links counted each: make it smaller, or raise bundles.max_bytes", t.limits.Bytes)
		}
	}
	for i := range t.nodes.length { // ghosts are of no use from here on
		at := &t.nodes.at(i).first
		for *at != none {
			if c := t.nodes.at(*at); c.kind == ghost {
				*at = c.next
			} else {
				at = &c.next
			}
		}
	}
	t.sortNames()
	return nil
}

// path of a node, "." for the root.
func (t *tree) path(i int32) string {
	if i == 0 {
		return "."
	}
	var parts [maxDeep + 1]string
	at := len(parts)
	for ; i != 0; i = t.nodes.at(i).parent {
		at--
		parts[at] = t.nodes.at(i).name
	}
	return strings.Join(parts[at:], "/")
}
