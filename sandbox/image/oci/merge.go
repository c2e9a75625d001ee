package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

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
	for i, l := range slices.Backward(layers) {
		if err := sc.scan(ctx, l, i); err != nil {
			return Merged{}, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	sc.below = nil
	if err := t.finish(); err != nil {
		return Merged{}, err
	}
	size, err := t.layOut(out)
	if err != nil {
		return Merged{}, fmt.Errorf("lay out image: %w", err)
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

// layOut writes everything but the contents of files.
func (t *tree) layOut(out io.WriterAt) (size int64, err error) {
	h := &hole{out: out}
	w := erofs.Create(h, erofs.WithBuildTime(0, 0), erofs.WithBlockSize(blockSize))
	if err := w.CopyFrom(&view{t, h}); err != nil {
		return 0, err
	}
	if err := w.Close(); err != nil {
		return 0, err
	}
	return h.size, nil
}

// place is where a content belongs in the image.
type place struct {
	source int32
	offset int64
}

// places reads the image back, compares every name with the tree, and finds where each content belongs. Sorted by source.
func (t *tree) places(in io.ReaderAt, size int64) (list []place, entries int, err error) {
	img, err := erofs.Open(io.NewSectionReader(in, 0, size))
	if err != nil {
		return nil, 0, fmt.Errorf("read image back: %w", err)
	}
	v := &view{tree: t}
	count := 0
	err = fs.WalkDir(img, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		count++
		at, err := v.resolve("compare", p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		offset, err := t.compare(at, info)
		if n := t.nodes[at]; err == nil && n.kind == file && n.size > 0 {
			list = append(list, place{n.source, offset})
		}
		return err
	})
	if err == nil && count != t.reachable() {
		err = fmt.Errorf("%d names, want %d", count, t.reachable())
	}
	if err != nil {
		return nil, 0, &bundle.Error{Code: bundle.ErrImage, Why: fmt.Sprintf("the merged image is not what its layers say: %v: report this", err), Err: err}
	}
	slices.SortFunc(list, func(a, b place) int { return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.offset, b.offset)) })
	return list, count, nil
}

// compare says whether an entry of the image is the node, and where its content is. The reader leaves the kernel's own mode in the lower
// bits; it has no other word for the sticky bit.
func (t *tree) compare(at int32, info fs.FileInfo) (offset int64, err error) {
	n := &t.nodes[at]
	st, ok := info.Sys().(*erofs.Stat)
	switch {
	case !ok:
		return 0, fmt.Errorf("%s: no attributes", t.path(at))
	case info.Mode().Type() != n.fileMode().Type(), uint16(info.Mode())&0o7777 != n.mode, st.UID != n.uid, st.GID != n.gid, int64(st.Mtime) != n.sec, st.MtimeNs != n.nsec, !maps.Equal(st.Xattrs, n.xattrs):
		return 0, fmt.Errorf("%s: %v %d:%d %d.%d, want %v %d:%d %d.%d", t.path(at), info.Mode(), st.UID, st.GID, st.Mtime, st.MtimeNs, n.fileMode(), n.uid, n.gid, n.sec, n.nsec)
	case n.kind == file && info.Size() != n.size, n.kind == symlink && info.Size() != int64(len(n.target)):
		return 0, fmt.Errorf("%s: %d bytes", t.path(at), info.Size())
	}
	if n.kind != file || n.size == 0 {
		return 0, nil
	}
	ranger, ok := info.(interface{ DataRange() []erofs.DataRange })
	if !ok {
		return 0, fmt.Errorf("%s: the reader does not say where its content is", t.path(at))
	}
	ranges := ranger.DataRange()
	if len(ranges) != 1 || ranges[0].Offset <= 0 || ranges[0].Size != n.size {
		return 0, fmt.Errorf("%s: its content is in %d places", t.path(at), len(ranges))
	}
	return ranges[0].Offset, nil
}

// reachable counts the names of the tree.
func (t *tree) reachable() int {
	count := 0
	stack := []int32{0}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		count++
		for c := t.nodes[at].first; c != none; c = t.nodes[c].next {
			stack = append(stack, c)
		}
	}
	return count
}

// fill reads a layer again and writes its contents to where they belong.
func (t *tree) fill(ctx context.Context, l Layer, number int16, places []place, out io.WriterAt) error {
	wanted := make(map[int32][]place)
	for i := 0; i < len(places); {
		j := i
		for j < len(places) && places[j].source == places[i].source {
			j++
		}
		if src := t.sources[places[i].source]; src.layer == number {
			wanted[src.entry] = places[i:j]
		}
		i = j
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
		if places := wanted[entry]; len(places) > 0 {
			if err := t.copy(s, places, out, buf); err != nil {
				return err
			}
		}
	}
}

// copy writes one content to all its places.
func (t *tree) copy(s *stream, places []place, out io.WriterAt, buf []byte) error {
	size := t.sources[places[0].source].size
	for done := int64(0); done < size; {
		n, err := io.ReadFull(s.tar, buf[:min(int64(len(buf)), size-done)])
		if err != nil {
			return s.broken(err)
		}
		for _, p := range places {
			if _, err := out.WriteAt(buf[:n], p.offset+done); err != nil {
				return fmt.Errorf("write image: %w", err)
			}
		}
		done += int64(n)
	}
	return nil
}
