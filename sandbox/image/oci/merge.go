package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"

	"github.com/erofs/go-erofs"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// File is where a merged image is written: an empty file, read back while it is made.
type File interface {
	io.WriterAt
	io.ReaderAt
}

// Merged says what came of a merge.
type Merged struct {
	Entries  int      // names in the image
	Size     int64    // bytes of the image
	Stripped Stripped // what was removed from entries
}

// Merge reads the layers, the lowest first in the list, and writes what they say together as one EROFS image. The same layers give
// the same bytes. reserve, when not nil, is told the image's size before the first content is written, and may refuse it. An image that
// was not written to its end is of no use: nothing in it may be mounted.
func Merge(ctx context.Context, layers []Layer, out File, limits Limits, reserve func(size int64) error) (Merged, error) {
	t := newTree(limits.withDefaults())
	sc := &scanner{tree: t}
	for i := len(layers) - 1; i >= 0; i-- {
		if err := sc.scan(ctx, layers[i], i); err != nil {
			return Merged{}, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	sc.below = nil
	if err := t.finish(); err != nil {
		return Merged{}, err
	}
	size, err := t.plan().write(out)
	if err != nil {
		return Merged{}, err
	}
	if reserve != nil {
		if err := reserve(size); err != nil {
			return Merged{}, err
		}
	}
	places, entries, err := t.places(out, size)
	if err != nil {
		return Merged{}, err
	}
	for i, l := range layers {
		if err := t.fill(ctx, l, int16(i), places, out); err != nil {
			return Merged{}, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	return Merged{Entries: entries, Size: size, Stripped: t.stripped}, nil
}

// place is where a piece of a content belongs in the image.
type place struct {
	from, size int64 // in the content
	at         int64 // in the image
}

// places reads the image back, compares every name with the tree, and finds where each content belongs, by source.
func (t *tree) places(in io.ReaderAt, size int64) (places map[int32][]place, entries int, err error) {
	img, err := erofs.Open(io.NewSectionReader(in, 0, size))
	if err != nil {
		return nil, 0, fmt.Errorf("read image back: %w", err)
	}
	places = make(map[int32][]place)
	err = fs.WalkDir(img, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries++
		at, err := t.resolve(p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		list, err := t.compare(at, info)
		if len(list) > 0 {
			places[t.nodes.at(at).source] = list // hard links have one place
		}
		return err
	})
	if err == nil && entries != t.reachable() {
		err = fmt.Errorf("%d names, want %d", entries, t.reachable())
	}
	if err != nil {
		return nil, 0, &bundle.Error{Code: bundle.ErrImage, Why: fmt.Sprintf("the merged image is not what its layers say: %v: report this", err), Err: err}
	}
	return places, entries, nil
}

// resolve finds a node by its path.
func (t *tree) resolve(name string) (at int32, err error) {
	if name == "." {
		return 0, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		c := t.nodes.find(at, part)
		if c == none || t.nodes.at(c).kind == ghost {
			return none, fmt.Errorf("%q is in no layer", name)
		}
		at = c
	}
	return at, nil
}

// compare says whether an entry of the image is the node, and where its content is. The reader leaves the kernel's own mode in the lower
// bits; it has no other word for the sticky bit.
func (t *tree) compare(at int32, info fs.FileInfo) ([]place, error) {
	n := t.nodes.at(at)
	st, ok := info.Sys().(*erofs.Stat)
	kinds := [...]fs.FileMode{ghost: fs.ModeIrregular, dir: fs.ModeDir, file: 0, symlink: fs.ModeSymlink}
	if !ok || info.Mode().Type() != kinds[n.kind] || uint16(info.Mode())&0o7777 != n.mode || st.UID != n.uid || st.GID != n.gid ||
		int64(st.Mtime) != n.sec || st.MtimeNs != n.nsec || info.Size() != t.sizeOf(at) || !maps.Equal(st.Xattrs, n.xattrs()) {
		return nil, fmt.Errorf("%s: got %v %d %+v", t.path(at), info.Mode(), info.Size(), st)
	}
	if n.kind != file || n.size == 0 {
		return nil, nil
	}
	ranger, ok := info.(interface{ DataRange() []erofs.DataRange })
	if !ok {
		return nil, fmt.Errorf("%s: the reader does not say where its content is", t.path(at))
	}
	var list []place
	var from int64
	for _, r := range ranger.DataRange() {
		if r.Offset <= 0 {
			return nil, fmt.Errorf("%s: its content is at %d", t.path(at), r.Offset)
		}
		list = append(list, place{from: from, size: r.Size, at: r.Offset})
		from += r.Size
	}
	if from != n.size {
		return nil, fmt.Errorf("%s: %d bytes of content, want %d", t.path(at), from, n.size)
	}
	return list, nil
}

// reachable counts the names of the tree.
func (t *tree) reachable() int {
	count := 0
	stack := []int32{0}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		count++
		for c := t.nodes.at(at).first; c != none; c = t.nodes.at(c).next {
			stack = append(stack, c)
		}
	}
	return count
}

// fill reads a layer again and writes its contents to where they belong.
func (t *tree) fill(ctx context.Context, l Layer, number int16, places map[int32][]place, out io.WriterAt) error {
	wanted := make(map[int32][]place)
	for i, list := range places {
		if src := t.sources[i]; src.layer == number {
			wanted[src.entry] = list
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	s, err := l.stream(ctx, t.limits.Bytes)
	if err != nil {
		return err
	}
	defer s.close()
	buf := make([]byte, 128<<10)
	for entry := int32(0); ; entry++ {
		_, err := s.next()
		if errors.Is(err, io.EOF) {
			return s.end()
		}
		if err != nil {
			return err
		}
		for _, p := range wanted[entry] {
			if err := p.fill(s, out, buf); err != nil {
				return err
			}
		}
	}
}

// fill copies one piece.
func (p place) fill(s *stream, out io.WriterAt, buf []byte) error {
	for done := int64(0); done < p.size; {
		n, err := io.ReadFull(s.tape, buf[:min(int64(len(buf)), p.size-done)])
		if err != nil {
			return s.broken(err)
		}
		if _, err := out.WriteAt(buf[:n], p.at+done); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
		done += int64(n)
	}
	return nil
}
