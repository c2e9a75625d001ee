package ocitest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Hostile is an image of the attack list, for a machine of [Arch]. A room that reads images throws all of them at itself, so that a row is
// written once.
type Hostile struct {
	Row  string // of the list, and what is wrong
	Path string // of an OCI layout
	Want bundle.Code
}

// Raw builds a tar header byte by byte, for what archive/tar does not write.
func Raw(name string, kind byte, size string, body []byte) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x00")
	copy(h[108:], "0000000\x00")
	copy(h[116:], "0000000\x00")
	copy(h[124:], size)
	copy(h[136:], "00000000000\x00")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(h, append(body, make([]byte, (512-len(body)%512)%512)...)...)
}

// PAX is an extended header with one record, before an empty file.
func PAX(key, value string) []byte {
	record := " " + key + "=" + value + "\n"
	n := len(record) + 2
	for len(fmt.Sprint(n))+len(record) != n {
		n++
	}
	record = fmt.Sprint(n) + record
	return append(Raw("pax", 'x', fmt.Sprintf("%011o\x00", len(record)), []byte(record)), Raw("file", '0', "00000000000\x00", nil)...)
}

// EightEiB is a size in base 256.
const EightEiB = "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"

// Layers are rows F1 to F8, and those of G3 that are no floods.
func Layers(t testing.TB) []Hostile {
	t.Helper()
	deep := strings.Repeat("d/", 10_000)
	var rows []Hostile
	for row, c := range map[string]struct {
		layers [][]byte
		want   bundle.Code
	}{
		"F1 out of the image":             {[][]byte{Tar(t, File("../../etc/x", "1"))}, bundle.ErrPath},
		"F1 absolute":                     {[][]byte{Tar(t, File("/abs", "1"))}, bundle.ErrPath},
		"F1 up and down":                  {[][]byte{Tar(t, File("a/../../b", "1"))}, bundle.ErrPath},
		"F1 empty name":                   {[][]byte{Raw("", '0', "00000000000\x00", nil)}, bundle.ErrPath},
		"F1 name of 256 bytes":            {[][]byte{Tar(t, File(strings.Repeat("n", 256), "1"))}, bundle.ErrPath},
		"F1 path of 4097 bytes":           {[][]byte{Tar(t, File(strings.Repeat(strings.Repeat("n", 240)+"/", 16)+strings.Repeat("n", 241), "1"))}, bundle.ErrPath},
		"F1 NUL":                          {[][]byte{PAX("path", "a\x00b")}, bundle.ErrPath},
		"F1 whiteout of nothing":          {[][]byte{Tar(t, File("a/.wh.", ""))}, bundle.ErrPath},
		"F1 whiteout of the parent":       {[][]byte{Tar(t, File("a/.wh...", ""))}, bundle.ErrPath},
		"F1 whiteout of the directory":    {[][]byte{Tar(t, File("a/.wh..", ""))}, bundle.ErrPath},
		"F1 entry below a whiteout":       {[][]byte{Tar(t, File(".wh.a/b", "1"))}, bundle.ErrPath},
		"F2 through a symbolic link":      {[][]byte{Tar(t, Symlink("a", "/etc"), File("a/passwd", "1"))}, bundle.ErrPath},
		"F2 through a link of a layer":    {[][]byte{Tar(t, Symlink("a", "/etc")), Tar(t, File("a/passwd", "1"))}, bundle.ErrPath},
		"F2 through a file":               {[][]byte{Tar(t, File("a", "1"), File("a/b", "2"))}, bundle.ErrPath},
		"F2 target of 1 MiB":              {[][]byte{Tar(t, Symlink("a", strings.Repeat("x", 1<<20-100)))}, bundle.ErrPath},
		"F2 root that is a file":          {[][]byte{Tar(t, File(".", "1"))}, bundle.ErrPath},
		"F3 hard link to outside":         {[][]byte{Tar(t, Link("a", "../../etc/shadow"))}, bundle.ErrLink},
		"F3 hard link to the host's file": {[][]byte{Tar(t, Link("a", "/etc/shadow"))}, bundle.ErrLink},
		"F3 hard link to nothing":         {[][]byte{Tar(t, Link("a", "b"))}, bundle.ErrLink},
		"F3 hard link to a directory":     {[][]byte{Tar(t, Dir("d"), Link("a", "d"))}, bundle.ErrLink},
		"F3 hard link to itself":          {[][]byte{Tar(t, Link("a", "a"))}, bundle.ErrLink},
		"F3 hard link to the root":        {[][]byte{Tar(t, Link("a", "./"))}, bundle.ErrLink},
		"F3 hard link to a later entry":   {[][]byte{Tar(t, Link("a", "b"), File("b", "1"))}, bundle.ErrLink},
		"F3 hard link to what was hidden": {[][]byte{Tar(t, File("b", "1")), Tar(t, File(".wh.b", "")), Tar(t, Link("a", "b"))}, bundle.ErrLink},
		"F3 hard link below what was":     {[][]byte{Tar(t, Dir("d"), File("d/b", "1")), Tar(t, File("d/.wh..wh..opq", "")), Tar(t, Link("a", "d/b"))}, bundle.ErrLink},
		"F4 character device":             {[][]byte{Tar(t, Node(tar.TypeChar, "null"))}, bundle.ErrNode},
		"F4 block device":                 {[][]byte{Tar(t, Node(tar.TypeBlock, "sda"))}, bundle.ErrNode},
		"F4 pipe":                         {[][]byte{Tar(t, Node(tar.TypeFifo, "pipe"))}, bundle.ErrNode},
		"F7 size of 8 EiB":                {[][]byte{Raw("a", '0', EightEiB, nil)}, bundle.ErrLimit},
		"F7 size of 1 TiB":                {[][]byte{Raw("a", '0', "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00", nil)}, bundle.ErrLimit},
		"F7 sparse, of GNU":               {[][]byte{PAX("GNU.sparse.size", "99999999")}, bundle.ErrLimit},
		"F7 sparse, of old GNU":           {[][]byte{Raw("a", 'S', "00000000000\x00", nil)}, bundle.ErrLimit},
		"F7 extended header of 1 GiB":     {[][]byte{Raw("a", 'x', "10000000000\x00", make([]byte, 2<<20))}, bundle.ErrLimit},
		"F7 negative size":                {[][]byte{PAX("size", "-5")}, bundle.ErrLimit},
		"F7 unknown type":                 {[][]byte{Raw("a", 'Q', "00000000000\x00", nil)}, bundle.ErrOCI},
		"F7 attributes of 4 KiB":          {[][]byte{PAX("SCHILY.xattr.user.a", strings.Repeat("x", 4096))}, bundle.ErrLimit},
		"F8 depth 10 000":                 {[][]byte{Tar(t, File(deep[:4090]+"x", "1"))}, bundle.ErrLimit},
		"G3 gzip in gzip":                 {[][]byte{Gzip(t, Tar(t, File("a", "1")))}, bundle.ErrOCI},
		"G3 ends in an entry":             {[][]byte{Tar(t, File("a", strings.Repeat("1", 5000)))[:2000]}, bundle.ErrOCI},
		"G3 is no tar":                    {[][]byte{bytes.Repeat([]byte("nonsense"), 128)}, bundle.ErrOCI},
	} {
		l := NewLayout(t)
		l.Index(l.Image(Object{}, c.layers...))
		rows = append(rows, Hostile{row, l.Path, c.want})
	}
	return rows
}

// Broken are images whose layers are not what their manifests say: rows A7, G3 and J3.
func Broken(t testing.TB) []Hostile {
	t.Helper()
	layer := Tar(t, File("a", "content"))
	other := Tar(t, File("a", "CONTENT"))
	zipped := Gzip(t, layer)
	var rows []Hostile
	for row, c := range map[string]struct {
		make func(l *Layout) (blob Object, diff bundle.Digest)
		want bundle.Code
	}{
		"G3 digest right, diffID wrong": {func(l *Layout) (Object, bundle.Digest) { return l.Blob(TypeTar, layer), Sum(other) }, bundle.ErrDigest},
		"A7 digest wrong": {func(l *Layout) (Object, bundle.Digest) {
			d := l.Blob(TypeTar, layer)
			l.File("blobs/sha256/"+Sum(layer).Hex(), other)
			return d, Sum(other)
		}, bundle.ErrDigest},
		"J3 size lie": {func(l *Layout) (Object, bundle.Digest) {
			d := l.Blob(TypeTar, layer)
			d["size"] = len(layer) - 1
			return d, Sum(layer)
		}, bundle.ErrDigest},
		"G3 cut short": {func(l *Layout) (Object, bundle.Digest) {
			return l.Blob(TypeTar+"+gzip", zipped[:len(zipped)-9]), Sum(layer)
		}, bundle.ErrOCI},
		"G3 something behind": {func(l *Layout) (Object, bundle.Digest) {
			return l.Blob(TypeTar+"+gzip", append(bytes.Clone(zipped), "more"...)), Sum(layer)
		}, bundle.ErrOCI},
		"G3 zstd called gzip": {func(l *Layout) (Object, bundle.Digest) {
			return l.Blob(TypeTar+"+gzip", Zstd(l.t, layer)), Sum(layer)
		}, bundle.ErrOCI},
	} {
		l := NewLayout(t)
		blob, diff := c.make(l)
		config := l.JSON(TypeConfig, Config(Object{}, diff))
		l.Index(l.JSON(TypeManifest, Object{"schemaVersion": 2, "config": config, "layers": []Object{blob}}))
		rows = append(rows, Hostile{row, l.Path, c.want})
	}
	return rows
}
