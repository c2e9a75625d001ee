package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// attackRows makes what is thrown at the device, on disk and on the server.
func (a *attacked) attackRows(t *testing.T, mux *http.ServeMux, url string) {
	t.Helper()
	a.Rows = append(bundleRows(t), webRows(t, mux, url)...)
	a.Rows = append(a.Rows, deltaRows(t, mux, url)...)
	a.Rows = append(a.Rows, imageRows(t)...)
	a.registryRows(t)
	for name := range deeds() {
		a.Rows = append(a.Rows, attackRow{ID: name, Deed: name})
	}
	slices.SortStableFunc(a.Rows, func(x, y attackRow) int { return cmp.Compare(x.ID, y.ID) })
}

// bundleRows are those that arrive as a file.
func bundleRows(t *testing.T) []attackRow {
	t.Helper()
	var rows []attackRow
	add := func(id string, spb []byte, want ...bundle.Code) {
		rows = append(rows, attackRow{ID: id, Ref: write(t, spb), Want: want})
	}
	for _, h := range bundletest.Attacks(t) {
		add(h.Row, h.File, h.Want)
	}
	good := bundletest.Build(t, bundletest.Options{Files: map[string]string{"data": string(noise(20<<10, 5))}})
	for at := 0; at < len(good); at += 1 + at/8 { // each byte of the header, and here and there of the rest; all of them in the room below
		add(fmt.Sprintf("A7 flipped bit of byte %d", at), flipped(good, at), bundle.ErrMagic, bundle.ErrVersion, bundle.ErrLength, bundle.ErrSignature,
			bundle.ErrCBOR, bundle.ErrField, bundle.ErrKey, bundle.ErrAlgorithm, bundle.ErrDigest, bundle.ErrIndex, bundle.ErrChunk, bundle.ErrTruncated)
	}
	for id, c := range map[string]struct {
		change func(*bundle.Manifest)
		want   bundle.Code
	}{
		"E1 another class":                  {func(m *bundle.Manifest) { m.Compatible = []string{"other"} }, bundle.ErrClass},
		"E1 another processor":              {func(m *bundle.Manifest) { m.Platform.Arch = "s390x" }, bundle.ErrArch},
		"E1 v7 on v6":                       {func(m *bundle.Manifest) { m.Platform.Arch, m.Platform.Variant = "arm", "v7" }, bundle.ErrArch},
		"E1 no variant on v6":               {func(m *bundle.Manifest) { m.Platform.Arch = "arm" }, bundle.ErrArch},
		"E1 newer kernel":                   {func(m *bundle.Manifest) { m.Platform.Kernel = "6.12" }, bundle.ErrKernel},
		"E2 missing dependency":             {func(m *bundle.Manifest) { m.Dependencies = []bundle.Dependency{{Name: "base", Min: 1}} }, bundle.ErrDependsOn},
		"E2 dependency that is too old":     {func(m *bundle.Manifest) { m.Dependencies = []bundle.Dependency{{Name: "active", Min: 2}} }, bundle.ErrDependsOn},
		"E2 dependency on itself":           {func(m *bundle.Manifest) { m.Name, m.Dependencies = "two", []bundle.Dependency{{Name: "demo", Min: 1}} }, bundle.ErrDependsOn},
		"E3 another kind with a module key": {func(m *bundle.Manifest) { m.Kind, m.Runtime, m.Compatible = bundle.KindAgent, nil, []string{"x"} }, bundle.ErrRole},
		"E3 newer agent":                    {func(m *bundle.Manifest) { m.MinAgent = 8 }, bundle.ErrAgent},
	} {
		add(id, bundletest.Build(t, bundletest.Options{Manifest: c.change}), c.want)
	}
	add("C7 name outside the key's prefix", bundletest.Build(t, bundletest.Options{Key: bundletest.Key(t, 3)}), bundle.ErrRole)
	for id, row := range map[string]struct {
		change func(b []byte) []byte
		want   []bundle.Code
	}{
		"F1 name of two dots: contain":        {renamed("zq", ".."), []bundle.Code{contained, bundle.ErrImage}}, // the kernel asks no file system what it is
		"F1 name with a slash: reject":        {renamed("zq", "z/"), []bundle.Code{bundle.ErrImage}},
		"F1 name with a NUL: reject":          {renamed("zq", "\x00q"), []bundle.Code{bundle.ErrImage}},
		"F2 accounts in the host's: contain":  {asMode(0o120777), []bundle.Code{contained}},
		"F4 device node: contain":             {asMode(0o020666), []bundle.Code{contained, bundle.ErrImage}},
		"F5 set-user bit: contain":            {asMode(0o104755), []bundle.Code{contained}},
		"F6 two entries of one name: contain": {renamed("zr", "zq"), []bundle.Code{contained, bundle.ErrImage}},
		"F7 size of 4 GiB: reject":            {sized(0xfffffff0), []bundle.Code{bundle.ErrImage}},
		"H3 root far away: reject":            {func(b []byte) []byte { b[1024+14], b[1024+15] = 0xff, 0xff; return b }, []bundle.Code{bundle.ErrImage}},
	} {
		add(id+", in a signed image", bundletest.Build(t, bundletest.Options{
			Files: map[string]string{"etc/passwd": "/etc/passwd", "zq": "#!one", "zr": "#!two"}, Image: row.change,
		}), row.want...)
	}
	return rows
}

// plain is the mode of the one file of an image that nobody may execute, where its inode has it.
var plain = []byte{0xa4, 0x81} //nolint:gochecknoglobals // 0100644, little-endian

// inodeOf finds that file's inode: its mode stands 4 bytes behind its start.
func inodeOf(b []byte) int {
	for at := 0; at+32 <= len(b); at += 32 {
		if bytes.Equal(b[at+4:at+6], plain) {
			return at
		}
	}
	panic("no such inode")
}

func asMode(mode uint16) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.LittleEndian.PutUint16(b[inodeOf(b)+4:], mode)
		return b
	}
}

func sized(size uint32) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[inodeOf(b)+8:], size)
		return b
	}
}

func renamed(from, to string) func([]byte) []byte {
	return func(b []byte) []byte {
		if n := bytes.Count(b, []byte(from)); n != 1 {
			panic(fmt.Sprintf("%q is %d times in the image", from, n))
		}
		return bytes.Replace(b, []byte(from), []byte(to), 1)
	}
}

func flipped(b []byte, at int) []byte {
	b = clone(b)
	b[at] ^= 1 << (at % 8)
	return b
}

// imageRows are OCI images that arrive as a layout.
func imageRows(t *testing.T) []attackRow {
	t.Helper()
	var rows []attackRow
	for _, h := range slices.Concat(ocitest.Layers(t), ocitest.Broken(t), ocitest.Floods(t), ocitest.Documents(t)) {
		rows = append(rows, attackRow{ID: h.Row + ", in a layout", Layout: h.Path, Want: []bundle.Code{h.Want}})
	}
	add := func(id string, want bundle.Code, entries ...tar.Header) {
		l := ocitest.NewLayout(t)
		l.Index(l.Image(ocitest.Object{}, ocitest.Tar(t, entries...)))
		rows = append(rows, attackRow{ID: id + ", in a layout", Layout: l.Path, Want: []bundle.Code{want}})
	}
	setUser := ocitest.File("su", "x")
	setUser.Mode = 0o4755
	add("F2 links in a circle: contain", contained, ocitest.Symlink("a", "b"), ocitest.Symlink("b", "a"))
	add("F2 accounts in the host's: contain", contained, ocitest.Dir("etc"), ocitest.Symlink("etc/passwd", "/etc/passwd"))
	add("F5 set-user bit: contain", contained, setUser)
	add("F6 two entries of one name: the last", contained, ocitest.File("a", "1"), ocitest.File("a", "2"))
	add("F6 twins but for the case: both", contained, ocitest.File("a", "1"), ocitest.File("A", "2"))
	add("G3 more than may be kept", bundle.ErrLimit, ocitest.File("a", strings.Repeat("\x00", 80<<20)))
	return rows
}
