package oci

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Limits of an image. The zero value means the defaults.
type Limits struct {
	Bytes   int64 // of all files together, and of each plain layer; default 4 GiB
	Entries int   // default 100,000
}

func (l Limits) withDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = 4 << 30
	}
	if l.Entries <= 0 {
		l.Entries = maxEntries
	}
	return l
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// scanner enters the layers into a tree, the top one first.
type scanner struct {
	tree  *tree
	layer int16
	entry int32            // number of the entry in its layer
	below map[string]inode // of this layer: files and links that are hidden, for hard links to them
	open  []pending        // hard links of layers above whose targets were not in their layer
	parts []string         // of the entry that is added
	cuts  []string         // of this layer: paths hidden from the layers under it
	here  int              // bytes held for this layer only
}

// pending is a hard link whose target is in a layer under its own.
type pending struct {
	at     int32
	target string
}

// scan reads one layer from its start to its end.
func (sc *scanner) scan(ctx context.Context, l Layer, number int) error {
	s, err := l.stream(ctx, sc.tree.limits.Bytes)
	if err != nil {
		return err
	}
	defer s.close()
	sc.layer, sc.entry, sc.below, sc.cuts = int16(number), 0, make(map[string]inode), nil
	sc.tree.held, sc.here = sc.tree.held-sc.here, 0
	links := len(sc.open)
	for ; ; sc.entry++ {
		h, err := s.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = sc.add(h)
		}
		if err != nil {
			return err
		}
	}
	if err := sc.settle(links); err != nil {
		return err
	}
	return s.end()
}

func (sc *scanner) add(h label) error {
	sc.tree.entries++
	if err := sc.tree.hold(len(h.link)); err != nil {
		return err
	}
	if h.kind == tapeGlobal {
		return nil
	}
	parts, err := split(h.name, sc.parts)
	if err != nil {
		return err
	}
	sc.parts = parts
	if len(parts) > 0 && strings.HasPrefix(parts[len(parts)-1], whiteout) {
		return sc.hide(parts)
	}
	for _, part := range parts {
		if strings.HasPrefix(part, whiteout) {
			return bundle.Reject(bundle.ErrPath, "a layer has an entry below the whiteout %.100q: build the image again", h.name)
		}
	}
	if h.kind == tapeLink {
		return sc.link(parts, h.link)
	}
	in, err := sc.inode(h)
	if err != nil {
		return err
	}
	return sc.put(parts, in)
}

func (sc *scanner) hide(parts []string) error {
	last := parts[len(parts)-1]
	parent := parts[:len(parts)-1]
	if last == opaque {
		sc.cuts = append(sc.cuts, strings.Join(parent, "/"))
		sc.tree.hideBelow(parent, sc.layer)
		return sc.holdHere(sc.cuts[len(sc.cuts)-1])
	}
	name := strings.TrimPrefix(last, whiteout)
	if name == "" || name == "." || name == ".." {
		return bundle.Reject(bundle.ErrPath, "a layer has the whiteout %.100q, which hides nothing that could have a name: build the image again", strings.Join(parts, "/"))
	}
	parts = append(parent, name)
	sc.cuts = append(sc.cuts, strings.Join(parts, "/"))
	sc.tree.hide(parts, sc.layer)
	return sc.holdHere(sc.cuts[len(sc.cuts)-1])
}

// inode takes from a header what the image keeps.
func (sc *scanner) inode(h label) (inode, error) {
	in := inode{mode: uint16(h.mode & 0o1777), uid: uint32(h.uid), gid: uint32(h.gid), source: none, sec: h.sec, nsec: h.nsec}
	switch h.kind {
	case tapeFile:
		in.kind, in.size = file, h.size
	case tapeDir:
		in.kind = dir
	case tapeSymlink:
		in.kind, in.more, in.mode = symlink, &more{target: strings.Clone(h.link)}, 0o777
		if h.link == "" || len(h.link) > maxPath || strings.ContainsRune(h.link, 0) {
			return in, bundle.Reject(bundle.ErrPath, "the symbolic link %.100q has a target of %d bytes, 1 to %d are taken: build the image again", h.name, len(h.link), maxPath)
		}
	case tapeChar, tapeBlock, tapePipe:
		return in, bundle.Reject(bundle.ErrNode, "a layer has the device or pipe %.100q: build the image without it, the sandbox makes its own devices", h.name)
	case tapeSparse:
		h.sparse = true
	default:
		return in, bundle.Reject(bundle.ErrOCI, "a layer has the entry %.100q of a type (%q) that is not known: build the image again", h.name, h.kind)
	}
	const mostID = 1<<32 - 2
	if h.sparse || h.uid < 0 || h.gid < 0 || h.uid > mostID || h.gid > mostID || in.size > sc.tree.limits.Bytes {
		return in, bundle.Reject(bundle.ErrLimit, "the entry %.100q has %d bytes of at most %d and owner %d:%d (sparse: %v): build the image again, or raise bundles.max_bytes",
			h.name, in.size, sc.tree.limits.Bytes, h.uid, h.gid, h.sparse)
	}
	if h.mode&0o6000 != 0 {
		sc.tree.stripped.SetID++
	}
	return in, sc.attributes(&in, h)
}

// attributes keeps the user's extended attributes.
func (sc *scanner) attributes(in *inode, h label) error {
	bytes := 0
	for name, value := range h.xattrs {
		suffix, ok := strings.CutPrefix(name, "user.")
		if !ok {
			sc.tree.stripped.Xattrs++
			continue
		}
		if bytes += len(name) + len(value) + 16; bytes > maxXattrs || suffix == "" || len(suffix) > maxName {
			return bundle.Reject(bundle.ErrLimit, "%.100q has extended attributes of more than %d bytes: build the image without them", h.name, maxXattrs)
		}
		if in.more == nil {
			in.more = &more{}
		}
		if in.more.xattrs == nil {
			in.more.xattrs = make(map[string]string)
		}
		in.more.xattrs[name] = value
	}
	return sc.tree.hold(bytes)
}

// put enters what an entry is. A hidden file may still be the target of a hard link that is not.
func (sc *scanner) put(parts []string, in inode) error {
	t := sc.tree
	if in.kind == file {
		in.source = int32(len(t.sources))
		t.sources = append(t.sources, source{layer: sc.layer, entry: sc.entry})
	}
	at, err := t.put(parts, sc.layer, in)
	if err != nil {
		return err
	}
	if at == none && in.kind != dir {
		return sc.keepBelow(parts, in)
	}
	return nil
}

// keepBelow remembers what is hidden.
func (sc *scanner) keepBelow(parts []string, in inode) error {
	name := strings.Join(parts, "/")
	sc.below[name] = in
	return sc.holdHere(name)
}

// holdHere notes a name that is kept until the layer ends.
func (sc *scanner) holdHere(name string) error {
	sc.here += len(name)
	return sc.tree.hold(len(name))
}

// link enters a hard link: what its target is, under another name.
func (sc *scanner) link(parts []string, target string) error {
	to, err := split(target, nil)
	if err != nil {
		return &bundle.Error{Code: bundle.ErrLink, Why: "a hard link leads nowhere: " + err.Error(), Err: err}
	}
	name := strings.Join(to, "/")
	if len(to) == 0 || name == strings.Join(parts, "/") {
		return bundle.Reject(bundle.ErrLink, "the hard link %.100q is to itself or to the root: build the image again", name)
	}
	in, here := sc.below[name]
	if i := sc.tree.find(to, sc.layer); i != none {
		in, here = sc.tree.nodes.at(i).inode, true
	}
	if here && in.kind == dir {
		return bundle.Reject(bundle.ErrLink, "a hard link is to the directory %.100q: build the image again", name)
	}
	if !here {
		in = inode{kind: file, source: none} // of a layer below, or nowhere
	}
	at, err := sc.tree.put(parts, sc.layer, in)
	switch {
	case err != nil:
		return err
	case at == none && here:
		return sc.keepBelow(parts, in)
	case at != none && !here:
		sc.open = append(sc.open, pending{at, name})
	}
	return nil
}

// settle ends a layer: links of the layers above it, the first so many, find their targets in it or lose them to its whiteouts. A
// target that the link's own layer has, but only behind the link, counts as missing.
func (sc *scanner) settle(links int) error {
	lost := func(p pending) error {
		return bundle.Reject(bundle.ErrLink, "the hard link %.100q is to %.100q, which is not there: build the image again", sc.tree.path(p.at), p.target)
	}
	var still []pending
	for i, p := range sc.open {
		in, here := sc.below[p.target]
		to, _ := split(p.target, nil)
		if n := sc.tree.find(to, sc.layer); n != none {
			in, here = sc.tree.nodes.at(n).inode, true
		}
		switch {
		case here && (i >= links || in.kind == dir):
			return lost(p)
		case here:
			sc.tree.nodes.at(p.at).inode = in
			continue
		}
		for _, cut := range sc.cuts {
			if i < links && (cut == "" || p.target == cut || strings.HasPrefix(p.target, path.Clean(cut)+"/")) {
				return lost(p)
			}
		}
		still = append(still, p)
	}
	sc.open = still
	if sc.layer == 0 && len(still) > 0 {
		return lost(still[0])
	}
	return nil
}
