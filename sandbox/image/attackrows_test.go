package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

// attackRows makes what is thrown at the device, on disk and on the server.
func attackRows(t *testing.T, mux *http.ServeMux, url string) []attackRow {
	t.Helper()
	rows := bundleRows(t)
	rows = append(rows, webRows(mux, url, bundletest.Build(t, bundletest.Options{Files: map[string]string{"data": string(noise(200<<10, 5))}}))...)
	return append(rows, layerRows(t)...)
}

func bundleRows(t *testing.T) []attackRow {
	t.Helper()
	good := bundletest.Build(t, bundletest.Options{Files: map[string]string{"data": string(noise(200<<10, 5))}})
	put := func(at int, b ...byte) []byte {
		spb := clone(good)
		copy(spb[at:], b)
		return spb
	}
	manifest := func(change func(*bundle.Manifest)) []byte {
		return bundletest.Build(t, bundletest.Options{Manifest: change})
	}
	var rows []attackRow
	add := func(id string, spb []byte, want ...bundle.Code) {
		rows = append(rows, attackRow{ID: id, Ref: write(t, spb), Want: want})
	}
	add("A1 wrong magic: reject", put(0, 'x'), bundle.ErrMagic)
	add("A1 text-mode magic: reject", bytes.Replace(good, []byte("\r\n"), []byte("\n"), 1), bundle.ErrMagic)
	add("A2 format 2: reject", put(8, 0, 2), bundle.ErrVersion)
	add("A3 no envelope: reject", put(12, 0, 0, 0, 0), bundle.ErrLength)
	add("A3 envelope of 2^32-1: reject", put(12, 255, 255, 255, 255), bundle.ErrLength)
	add("A3 index of 2^63: reject", put(16, 0x80), bundle.ErrLength)
	add("A4 another payload length: reject", put(24, 0, 0, 0, 0, 0, 0, 1, 0), bundle.ErrLength)
	add("A5 ends in its payload: reject", good[:len(good)-1], bundle.ErrTruncated)
	add("A5 ends in its header: reject", good[:31], bundle.ErrTruncated)
	add("A6 trailing byte: reject", append(clone(good), 0), bundle.ErrLength)
	add("A7 flipped bit of the payload: reject", put(len(good)-100, good[len(good)-100]^1), bundle.ErrChunk)
	add("A7 flipped bit of the envelope: reject", put(60, good[60]^1), bundle.ErrSignature, bundle.ErrCBOR, bundle.ErrField, bundle.ErrKey)
	add("C1 no signature: reject", unsigned(t, good), bundle.ErrSignature)
	add("C2 unknown key: reject", bundletest.Build(t, bundletest.Options{Key: bundletest.Key(t, 2)}), bundle.ErrKey)
	add("E1 another class: reject", manifest(func(m *bundle.Manifest) { m.Compatible = []string{"other"} }), bundle.ErrClass)
	add("E1 another processor: reject", manifest(func(m *bundle.Manifest) { m.Platform.Arch = "s390x" }), bundle.ErrArch)
	add("E2 missing dependency: reject", manifest(func(m *bundle.Manifest) { m.Dependencies = []bundle.Dependency{{Name: "base", Min: 1}} }), bundle.ErrDependsOn)
	add("G1 frame of 64 MiB: reject", bomb(t, good), bundle.ErrChunk)
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

// bomb is a bundle whose first chunk is a frame of 64 MiB of zeros, signed.
func bomb(t *testing.T, spb []byte) []byte {
	t.Helper()
	head, _ := imageOf(t, spb)
	index := indexIn(t, spb)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	frame := enc.EncodeAll(make([]byte, 64<<20), nil)
	if len(frame) >= int(index[0].Plain) {
		t.Fatalf("frame of %d bytes, the chunk has %d", len(frame), index[0].Plain)
	}
	payload := append(frame, spb[head.Header.PayloadOffset()+int64(index[0].Stored):]...)
	index[0].Stored = uint32(len(frame))
	m := head.Manifest
	m.Index.Digest, m.Index.Payload = sha256.Sum256(index.Append(nil)), uint64(len(payload))
	e, err := bundle.Sign(m, bundletest.Key(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return append(bundle.AppendPrefix(nil, e, index), payload...)
}

// webRows are servers that do not what they should.
func webRows(mux *http.ServeMux, url string, good []byte) []attackRow {
	var rows []attackRow
	add := func(id string, serve http.HandlerFunc, want ...bundle.Code) {
		path := fmt.Sprintf("/%d/", len(rows))
		mux.HandleFunc(path, serve)
		rows = append(rows, attackRow{ID: id, Ref: url + path + "x.spb", Want: want})
	}
	add("A5 cut each time: retry, then reject", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good[:20]) }, bundle.ErrTruncated)
	add("I1 Content-Encoding: reject", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(good)
	}, bundle.ErrTransfer)
	add("I1 another range: reject", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 7-9/10")
		w.WriteHeader(http.StatusPartialContent)
	}, bundle.ErrTransfer)
	add("I2 redirect to a file: reject", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/shadow", http.StatusFound)
	}, bundle.ErrTransfer)
	add("I2 endless redirects: reject", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"/", http.StatusFound) }, bundle.ErrTransfer)
	add("I3 endless body: cut at the expected length", func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(good)
		for err == nil {
			_, err = w.Write(make([]byte, 64<<10))
		}
	}, bundle.ErrLength, contained)
	return rows
}

// layerRows are OCI images.
func layerRows(t *testing.T) []attackRow {
	t.Helper()
	var rows []attackRow
	add := func(id, arch string, want bundle.Code, entries ...ocitest.Entry) {
		c := ocitest.NewContent(t)
		dir := filepath.Join(t.TempDir(), "layout")
		c.Layout(dir, "v1", c.Image(arch, ocitest.Object{}, ocitest.Layer(t, entries...)))
		rows = append(rows, attackRow{ID: id, Layout: dir, Want: []bundle.Code{want}})
	}
	here := runtime.GOARCH
	typed := func(name string, kind byte, to string, mode int64) ocitest.Entry {
		return ocitest.Entry{Name: name, Header: tar.Header{Typeflag: kind, Linkname: to, Mode: mode}}
	}
	add("F1 out of the image: reject", here, bundle.ErrPath, ocitest.Entry{Name: "../../etc/x"})
	add("F1 absolute: reject", here, bundle.ErrPath, ocitest.Entry{Name: "/etc/x"})
	add("F2 through a link: reject", here, bundle.ErrPath, typed("a", tar.TypeSymlink, "/etc", 0), ocitest.Entry{Name: "a/passwd"})
	add("F2 links in a circle: contain", here, contained, typed("a", tar.TypeSymlink, "b", 0), typed("b", tar.TypeSymlink, "a", 0))
	add("F2 accounts in the host's: contain", here, contained, typed("etc", tar.TypeDir, "", 0), typed("etc/passwd", tar.TypeSymlink, "/etc/passwd", 0))
	add("F3 hard link to the host's: reject", here, bundle.ErrLink, typed("a", tar.TypeLink, "/etc/shadow", 0))
	add("F4 device: reject", here, bundle.ErrNode, typed("null", tar.TypeChar, "", 0))
	add("F5 set-user bit: contain", here, contained, ocitest.Entry{Name: "su", Header: tar.Header{Mode: 0o4755}})
	add("F6 two entries of one name: the last", here, contained, ocitest.Entry{Name: "a", Content: []byte("1")}, ocitest.Entry{Name: "a", Content: []byte("2")})
	add("F8 deep: reject", here, bundle.ErrLimit, ocitest.Entry{Name: strings.Repeat("d/", 2000) + "x"})
	add("G3 more than may be kept: reject", here, bundle.ErrLimit, ocitest.Entry{Name: "a", Content: make([]byte, 80<<20)})
	add("J1 for no machine of ours: reject", "s390x", bundle.ErrOCI, ocitest.Entry{Name: "a"})
	return rows
}
