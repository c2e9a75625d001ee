package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// raw builds a tar header byte by byte, for what archive/tar does not write.
func raw(name string, kind byte, size string, body []byte) []byte {
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

// pax is an extended header with one record, before an empty file.
func pax(key, value string) []byte {
	record := " " + key + "=" + value + "\n"
	n := len(record) + 2
	for len(fmt.Sprint(n))+len(record) != n {
		n++
	}
	record = fmt.Sprint(n) + record
	return append(raw("pax", 'x', fmt.Sprintf("%011o\x00", len(record)), []byte(record)), raw("file", '0', "00000000000\x00", nil)...)
}

// eightEiB is a size in base 256.
const eightEiB = "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"

// patience is how long a refusal may take: 5 s on a machine that does nothing else, more where many tests run.
const patience = 20 * time.Second

func TestHostileLayersAreRefused(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("d/", 10_000)
	for row, c := range map[string]struct {
		layers [][]byte
		want   bundle.Code
	}{
		"F1 out of the image":             {[][]byte{layerOf(t, fileOf("../../etc/x", "1"))}, bundle.ErrPath},
		"F1 absolute":                     {[][]byte{layerOf(t, fileOf("/abs", "1"))}, bundle.ErrPath},
		"F1 up and down":                  {[][]byte{layerOf(t, fileOf("a/../../b", "1"))}, bundle.ErrPath},
		"F1 empty name":                   {[][]byte{raw("", '0', "00000000000\x00", nil)}, bundle.ErrPath},
		"F1 name of 256 bytes":            {[][]byte{layerOf(t, fileOf(strings.Repeat("n", 256), "1"))}, bundle.ErrPath},
		"F1 path of 4097 bytes":           {[][]byte{layerOf(t, fileOf(strings.Repeat(strings.Repeat("n", 240)+"/", 17)+"xxxx", "1"))}, bundle.ErrPath},
		"F1 NUL":                          {[][]byte{pax("path", "a\x00b")}, bundle.ErrPath},
		"F1 whiteout of nothing":          {[][]byte{layerOf(t, fileOf("a/.wh.", ""))}, bundle.ErrPath},
		"F1 whiteout of the parent":       {[][]byte{layerOf(t, fileOf("a/.wh...", ""))}, bundle.ErrPath},
		"F1 whiteout of the directory":    {[][]byte{layerOf(t, fileOf("a/.wh..", ""))}, bundle.ErrPath},
		"F1 entry below a whiteout":       {[][]byte{layerOf(t, fileOf(".wh.a/b", "1"))}, bundle.ErrPath},
		"F2 through a symbolic link":      {[][]byte{layerOf(t, symlinkOf("a", "/etc"), fileOf("a/passwd", "1"))}, bundle.ErrPath},
		"F2 through a link of a layer":    {[][]byte{layerOf(t, symlinkOf("a", "/etc")), layerOf(t, fileOf("a/passwd", "1"))}, bundle.ErrPath},
		"F2 through a file":               {[][]byte{layerOf(t, fileOf("a", "1"), fileOf("a/b", "2"))}, bundle.ErrPath},
		"F2 target of 1 MiB":              {[][]byte{layerOf(t, symlinkOf("a", strings.Repeat("x", 1<<20-100)))}, bundle.ErrPath},
		"F2 root that is a file":          {[][]byte{layerOf(t, fileOf(".", "1"))}, bundle.ErrPath},
		"F3 hard link to outside":         {[][]byte{layerOf(t, linkOf("a", "../../etc/shadow"))}, bundle.ErrLink},
		"F3 hard link to the host's file": {[][]byte{layerOf(t, linkOf("a", "/etc/shadow"))}, bundle.ErrLink},
		"F3 hard link to nothing":         {[][]byte{layerOf(t, linkOf("a", "b"))}, bundle.ErrLink},
		"F3 hard link to a directory":     {[][]byte{layerOf(t, dirOf("d"), linkOf("a", "d"))}, bundle.ErrLink},
		"F3 hard link to itself":          {[][]byte{layerOf(t, linkOf("a", "a"))}, bundle.ErrLink},
		"F3 hard link to the root":        {[][]byte{layerOf(t, linkOf("a", "./"))}, bundle.ErrLink},
		"F3 hard link to a later entry":   {[][]byte{layerOf(t, linkOf("a", "b"), fileOf("b", "1"))}, bundle.ErrLink},
		"F3 hard link to what was hidden": {[][]byte{layerOf(t, fileOf("b", "1")), layerOf(t, fileOf(".wh.b", "")), layerOf(t, linkOf("a", "b"))}, bundle.ErrLink},
		"F3 hard link below what was":     {[][]byte{layerOf(t, dirOf("d"), fileOf("d/b", "1")), layerOf(t, fileOf("d/.wh..wh..opq", "")), layerOf(t, linkOf("a", "d/b"))}, bundle.ErrLink},
		"F4 character device":             {[][]byte{layerOf(t, nodeOf(tar.TypeChar, "null"))}, bundle.ErrNode},
		"F4 block device":                 {[][]byte{layerOf(t, nodeOf(tar.TypeBlock, "sda"))}, bundle.ErrNode},
		"F4 pipe":                         {[][]byte{layerOf(t, nodeOf(tar.TypeFifo, "pipe"))}, bundle.ErrNode},
		"F7 size of 8 EiB":                {[][]byte{raw("a", '0', eightEiB, nil)}, bundle.ErrLimit},
		"F7 size of 1 TiB":                {[][]byte{raw("a", '0', "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00", nil)}, bundle.ErrLimit},
		"F7 sparse, of GNU":               {[][]byte{pax("GNU.sparse.size", "99999999")}, bundle.ErrLimit},
		"F7 sparse, of old GNU":           {[][]byte{raw("a", 'S', "00000000000\x00", nil)}, bundle.ErrLimit},
		"F7 extended header of 1 GiB":     {[][]byte{raw("a", 'x', "10000000000\x00", make([]byte, 2<<20))}, bundle.ErrLimit},
		"F7 negative size":                {[][]byte{pax("size", "-5")}, bundle.ErrLimit},
		"F7 unknown type":                 {[][]byte{raw("a", 'Q', "00000000000\x00", nil)}, bundle.ErrOCI},
		"F7 attributes of 4 KiB":          {[][]byte{pax("SCHILY.xattr.user.a", strings.Repeat("x", 4096))}, bundle.ErrLimit},
		"F8 depth 10 000":                 {[][]byte{layerOf(t, fileOf(deep[:4090]+"x", "1"))}, bundle.ErrLimit},
		"G3 gzip in gzip":                 {[][]byte{gzipOf(t, layerOf(t, fileOf("a", "1")))}, bundle.ErrOCI},
		"G3 ends in an entry":             {[][]byte{layerOf(t, fileOf("a", strings.Repeat("1", 5000)))[:2000]}, bundle.ErrOCI},
		"G3 is no tar":                    {[][]byte{bytes.Repeat([]byte("nonsense"), 128)}, bundle.ErrOCI},
	} {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			l := newLayout(t)
			l.index(l.image(object{}, c.layers...))
			start := time.Now()
			_, _, f, err := merge(t, l.dir)
			if got := bundle.CodeOf(err); got != c.want {
				t.Errorf("got %q (%v), want %s", got, err, c.want)
			}
			if strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("got %q, want one line", err)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("took %v, want less than %v", took, patience)
			}
			if info, serr := f.Stat(); serr != nil || info.Size() != 0 {
				t.Errorf("got %d bytes written, want none: %v", info.Size(), serr)
			}
		})
	}
}

func TestFloodsAreCutShort(t *testing.T) {
	for row, c := range map[string]struct {
		mediaType string
		make      func(t *testing.T) []byte
	}{
		"F8 10 million entries": {typeLayer + "+gzip", func(t *testing.T) []byte {
			t.Helper()
			var buf bytes.Buffer
			z, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 101_000 { // as good as 10 million: nobody reads further
				_, _ = z.Write(raw(fmt.Sprintf("some/dir/f%d", i), '0', "00000000000\x00", nil))
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			return buf.Bytes()
		}},
		"F8 one name again and again": {typeLayer, func(*testing.T) []byte {
			return bytes.Repeat(raw("a", '0', "00000000000\x00", nil), 101_000)
		}},
		"G3 gzip bomb": {typeLayer + "+gzip", func(t *testing.T) []byte {
			t.Helper()
			var buf bytes.Buffer
			z := gzip.NewWriter(&buf)
			_, _ = z.Write(raw("a", '0', "07777777777\x00", nil))
			zeros := make([]byte, 1<<20)
			for range 200 {
				_, _ = z.Write(zeros)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			return buf.Bytes()
		}},
		"G3 zstd bomb": {typeLayer + "+zstd", func(t *testing.T) []byte {
			t.Helper()
			var buf bytes.Buffer
			z, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = z.Write(raw("a", '0', "07777777777\x00", nil))
			zeros := make([]byte, 1<<20)
			for range 200 {
				_, _ = z.Write(zeros)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			return buf.Bytes()
		}},
	} {
		t.Run(row, func(t *testing.T) {
			blob := c.make(t)
			l := newLayout(t)
			config := l.json(typeConfig, configOf(object{}, digestOf(blob)))
			l.index(l.json(oci.TypeManifest, object{"schemaVersion": 2, "config": config, "layers": []object{l.blob(c.mediaType, blob)}}))
			a, err := oci.OpenArchive(l.dir)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			img, err := a.Image("", here, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(l.dir + "/image")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err = oci.Merge(t.Context(), img.Layers, f, oci.Limits{Bytes: 1 << 30}, nil)
			if got := bundle.CodeOf(err); got != bundle.ErrLimit {
				t.Errorf("got %q (%v), want %s", got, err, bundle.ErrLimit)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("took %v, want less than %v", took, patience)
			}
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
				t.Errorf("the heap grew by %d bytes", grown)
			}
		})
	}
}

func TestBrokenLayersAreRefused(t *testing.T) {
	t.Parallel()
	layer := layerOf(t, fileOf("a", "content"))
	other := layerOf(t, fileOf("a", "CONTENT"))
	zipped := gzipOf(t, layer)
	for row, c := range map[string]struct {
		make func(l *layout) (blob object, diff oci.Digest)
		want bundle.Code
	}{
		"G3 digest right, diffID wrong": {func(l *layout) (object, oci.Digest) { return l.blob(typeLayer, layer), digestOf(other) }, bundle.ErrDigest},
		"A7 digest wrong": {func(l *layout) (object, oci.Digest) {
			d := l.blob(typeLayer, layer)
			l.file("blobs/sha256/"+digestOf(layer).Hex(), other)
			return d, digestOf(other)
		}, bundle.ErrDigest},
		"J3 size lie": {func(l *layout) (object, oci.Digest) {
			d := l.blob(typeLayer, layer)
			d["size"] = len(layer) - 1
			return d, digestOf(layer)
		}, bundle.ErrDigest},
		"G3 cut short": {func(l *layout) (object, oci.Digest) {
			return l.blob(typeLayer+"+gzip", zipped[:len(zipped)-9]), digestOf(layer)
		}, bundle.ErrOCI},
		"G3 something behind": {func(l *layout) (object, oci.Digest) {
			return l.blob(typeLayer+"+gzip", append(bytes.Clone(zipped), "more"...)), digestOf(layer)
		}, bundle.ErrOCI},
		"G3 zstd called gzip": {func(l *layout) (object, oci.Digest) {
			return l.blob(typeLayer+"+gzip", zstdOf(l.t, layer)), digestOf(layer)
		}, bundle.ErrOCI},
	} {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			l := newLayout(t)
			blob, diff := c.make(l)
			config := l.json(typeConfig, configOf(object{}, diff))
			l.index(l.json(oci.TypeManifest, object{"schemaVersion": 2, "config": config, "layers": []object{blob}}))
			if _, _, _, err := merge(t, l.dir); bundle.CodeOf(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	t.Run("H1 a layer exchanged between the two readings", func(t *testing.T) {
		t.Parallel()
		l := newLayout(t)
		l.index(l.image(object{}, layer))
		a, err := oci.OpenArchive(l.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		img, err := a.Image("", here, limit)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(l.dir + "/image")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		exchange := func(int64) error {
			l.file("blobs/sha256/"+img.Layers[0].Blob.Digest.Hex(), gzipOf(t, other))
			return nil
		}
		if _, err := oci.Merge(t.Context(), img.Layers, f, oci.Limits{}, exchange); bundle.CodeOf(err) != bundle.ErrDigest {
			t.Errorf("got %v, want %s", err, bundle.ErrDigest)
		}
	})
}
