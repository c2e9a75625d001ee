package oci_test

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/erofs/go-erofs"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

func TestLayersMergeAsTheSpecificationSays(t *testing.T) {
	t.Parallel()
	for claim, c := range map[string]struct {
		layers [][]tar.Header // the lowest first
		want   string
	}{
		"an upper file wins, and brings its own attributes": {
			[][]tar.Header{{ocitest.Dir("etc/"), ocitest.File("etc/a", "old"), ocitest.File("etc/b", "kept")}, {{Typeflag: tar.TypeReg, Name: "etc/a", Linkname: "new", Size: 3, Mode: 0o600, Uid: 70000, Gid: 5}}},
			"drwxr-xr-x 0:0 .\ndrwxr-xr-x 0:0 etc\n-rw------- 70000:5 etc/a = new\n-rw-r--r-- 0:0 etc/b = kept\n",
		},
		"a whiteout hides a file and what is below a directory": {
			[][]tar.Header{{ocitest.Dir("d"), ocitest.File("d/a", "1"), ocitest.File("x", "2"), ocitest.File("y", "3")}, {ocitest.File(".wh.x", ""), ocitest.File(".wh.d", "")}},
			"drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 y = 3\n",
		},
		"a whiteout hides lower layers only, wherever it stands in its own": {
			[][]tar.Header{{ocitest.Dir("d"), ocitest.File("d/old", "1")}, {ocitest.File("d/new", "2"), ocitest.Dir("d"), ocitest.File(".wh.d", "")}},
			"drwxr-xr-x 0:0 .\ndrwxr-xr-x 0:0 d\n-rw-r--r-- 0:0 d/new = 2\n",
		},
		"an opaque directory keeps its own layer's entries": {
			[][]tar.Header{{ocitest.Dir("d"), ocitest.File("d/old", "1"), ocitest.Dir("d/sub"), ocitest.File("d/sub/x", "2")}, {ocitest.Dir("d"), ocitest.File("d/new", "3"), ocitest.File("d/.wh..wh..opq", "")}},
			"drwxr-xr-x 0:0 .\ndrwxr-xr-x 0:0 d\n-rw-r--r-- 0:0 d/new = 3\n",
		},
		"an opaque marker keeps the attributes the lower layer gave the directory": {
			[][]tar.Header{{{Typeflag: tar.TypeDir, Name: "d", Mode: 0o1700, Uid: 7}, ocitest.File("d/old", "1")}, {ocitest.File("d/.wh..wh..opq", "")}},
			"drwxr-xr-x 0:0 .\ndrwx------ sticky 7:0 d\n",
		},
		"a file over a directory hides all of it, a directory over a file is new": {
			[][]tar.Header{{ocitest.Dir("d"), ocitest.File("d/a", "1"), ocitest.File("f", "2")}, {ocitest.File("d", "file"), ocitest.Dir("f"), ocitest.File("f/b", "3")}},
			"drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 d = file\ndrwxr-xr-x 0:0 f\n-rw-r--r-- 0:0 f/b = 3\n",
		},
		"of two entries with one name the last counts": {
			[][]tar.Header{{ocitest.File("a", "1"), ocitest.File("a", "22"), ocitest.Dir("b"), ocitest.File("b/x", "3"), ocitest.File("b", "4"), ocitest.File("c", "5"), ocitest.Dir("c"), ocitest.File("c/y", "6")}},
			"drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 a = 22\n-rw-r--r-- 0:0 b = 4\ndrwxr-xr-x 0:0 c\n-rw-r--r-- 0:0 c/y = 6\n",
		},
		"names that differ in case are two": {
			[][]tar.Header{{ocitest.File("A", "1"), ocitest.File("a", "2")}},
			"drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 A = 1\n-rw-r--r-- 0:0 a = 2\n",
		},
		"a file deleted and made again in a third layer is there": {
			[][]tar.Header{{ocitest.File("a", "1")}, {ocitest.File(".wh.a", "")}, {ocitest.File("a", "3")}},
			"drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 a = 3\n",
		},
		"a deleted directory does not come back through its lower entries": {
			[][]tar.Header{{ocitest.Dir("d"), ocitest.File("d/a", "1")}, {ocitest.File(".wh.d", "")}, {ocitest.Dir("e")}},
			"drwxr-xr-x 0:0 .\ndrwxr-xr-x 0:0 e\n",
		},
		"a hard link has its target's content and attributes": {
			[][]tar.Header{{{Typeflag: tar.TypeReg, Name: "a", Linkname: "x", Size: 1, Mode: 0o751, Uid: 3}, ocitest.Link("b", "a"), ocitest.Link("c", "./b")}},
			"drwxr-xr-x 0:0 .\n-rwxr-x--x 3:0 a = x\n-rwxr-x--x 3:0 b = x\n-rwxr-x--x 3:0 c = x\n",
		},
		"a hard link outlives its target": {
			[][]tar.Header{{ocitest.File("a", "content"), ocitest.Link("b", "a"), ocitest.Link("c", "b")}, {ocitest.File(".wh.a", ""), ocitest.File("b", "other")}},
			"drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 b = other\n-rw-r--r-- 0:0 c = content\n",
		},
		"a hard link to a layer below its own finds it": {
			[][]tar.Header{{ocitest.File("a", "below")}, {ocitest.Link("b", "a")}},
			"drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 a = below\n-rw-r--r-- 0:0 b = below\n",
		},
		"symbolic links stay as they are, wherever they point": {
			[][]tar.Header{{ocitest.Symlink("abs", "/etc/shadow"), ocitest.Symlink("loop", "loop"), ocitest.Symlink("up", "../../.."), ocitest.Link("hard", "loop")}},
			"drwxr-xr-x 0:0 .\nLrwxrwxrwx 0:0 abs -> /etc/shadow\nLrwxrwxrwx 0:0 hard -> loop\nLrwxrwxrwx 0:0 loop -> loop\nLrwxrwxrwx 0:0 up -> ../../..\n",
		},
		"a symbolic link over a directory hides it": {
			[][]tar.Header{{ocitest.Dir("d"), ocitest.File("d/a", "1")}, {ocitest.Symlink("d", "elsewhere")}},
			"drwxr-xr-x 0:0 .\nLrwxrwxrwx 0:0 d -> elsewhere\n",
		},
		"the root's own entry counts": {
			[][]tar.Header{{{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711, Uid: 9}, ocitest.File("./a", "1")}},
			"drwx--x--x 9:0 .\n-rw-r--r-- 0:0 a = 1\n",
		},
		"so does one that is called /": {
			[][]tar.Header{{{Typeflag: tar.TypeDir, Name: "/", Mode: 0o711, Uid: 9}, ocitest.File("a", "1")}},
			"drwx--x--x 9:0 .\n-rw-r--r-- 0:0 a = 1\n",
		},
		"a file in the place of a directory needs no whiteouts of what was in it, and may have them": {
			[][]tar.Header{{ocitest.Dir("d"), ocitest.File("d/a", "1"), ocitest.File("d/b", "2")}, {ocitest.File("d/.wh.a", ""), ocitest.File("d", "file"), ocitest.File("d/.wh.b", "")}},
			"drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 d = file\n",
		},
		"set-id bits and attributes that mean nothing in a sandbox go, the user's stay": {
			[][]tar.Header{{{
				Typeflag: tar.TypeReg, Name: "su", Mode: 0o6755, Linkname: "", PAXRecords: map[string]string{
					"SCHILY.xattr.user.note": "hi", "SCHILY.xattr.security.capability": "\x01", "SCHILY.xattr.trusted.overlay.opaque": "y",
				},
			}}},
			"drwxr-xr-x 0:0 .\n-rwxr-xr-x 0:0 su =  [user.note=hi]\n",
		},
		"directories that no layer describes are there all the same": {
			[][]tar.Header{{ocitest.File("a/b/c", "1")}},
			"drwxr-xr-x 0:0 .\ndrwxr-xr-x 0:0 a\ndrwxr-xr-x 0:0 a/b\n-rw-r--r-- 0:0 a/b/c = 1\n",
		},
		"a whiteout of what was never there leaves no trace": {
			[][]tar.Header{{ocitest.File("a", "1")}, {ocitest.File("x/y/.wh.z", ""), ocitest.File("q/.wh..wh..opq", "")}},
			"drwxr-xr-x 0:0 .\n-rw-r--r-- 0:0 a = 1\n",
		},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			l := ocitest.NewLayout(t)
			var layers [][]byte
			for _, entries := range c.layers {
				layers = append(layers, ocitest.Tar(t, entries...))
			}
			l.Index(l.Image(ocitest.Object{}, layers...))
			_, _, f, err := merge(t, l.Path)
			if err != nil {
				t.Fatal(err)
			}
			if got := listing(t, f); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestContentsTimesAndSizesSurvive(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789abcdef", 70_000)
	old := tar.Header{Typeflag: tar.TypeReg, Name: "old", Linkname: "x", Size: 1, Mode: 0o644, ModTime: time.Unix(-86400, 0)}
	l := ocitest.NewLayout(t)
	l.Index(l.Image(ocitest.Object{}, ocitest.Tar(t, ocitest.File("big", big), ocitest.File("block", big[:4096]), ocitest.File("tail", big[:4097]), ocitest.File("empty", ""), old), ocitest.Tar(t, ocitest.Link("again", "big"))))
	_, merged, f, err := merge(t, l.Path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"big": big, "again": big, "block": big[:4096], "tail": big[:4097], "empty": "", "old": "x"} {
		got, err := fs.ReadFile(img, name)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %d bytes, %v, want %d", name, len(got), err, len(want))
		}
		info, err := fs.Stat(img, name)
		if err != nil {
			t.Fatal(err)
		}
		wantTime := ocitest.Epoch()
		if name == "old" {
			wantTime = old.ModTime
		}
		if st := info.Sys().(*erofs.Stat); int64(st.Mtime) != wantTime.Unix() || int(st.MtimeNs) != wantTime.Nanosecond() {
			t.Errorf("%s: got time %d.%d, want %v", name, int64(st.Mtime), st.MtimeNs, wantTime)
		}
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size != merged.Size || size%4096 != 0 {
		t.Errorf("got %d bytes, %v, Merge says %d", size, err, merged.Size)
	}
	if _, err := bundle.CheckImage(f, size); err != nil {
		t.Error(err)
	}
}

func TestTheSameLayersGiveTheSameBytes(t *testing.T) {
	t.Parallel()
	l := ocitest.NewLayout(t)
	l.Index(l.Image(ocitest.Object{}, ocitest.Tar(t, ocitest.Dir("a"), ocitest.File("a/z", "1"), ocitest.File("a/y", strings.Repeat("y", 9000))), ocitest.Tar(t, ocitest.File("b", "2"), ocitest.Link("c", "b"))))
	var images [2][]byte
	for i := range images {
		_, _, f, err := merge(t, l.Path)
		if err != nil {
			t.Fatal(err)
		}
		if images[i], err = os.ReadFile(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("got two images, want one")
	}
}

func TestWhatWasStrippedIsCounted(t *testing.T) {
	t.Parallel()
	l := ocitest.NewLayout(t)
	l.Index(l.Image(ocitest.Object{}, ocitest.Tar(t,
		tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755},
		tar.Header{Typeflag: tar.TypeDir, Name: "spool", Mode: 0o2775},
		tar.Header{Typeflag: tar.TypeReg, Name: "ping", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01"}},
	)))
	_, merged, _, err := merge(t, l.Path)
	if err != nil || merged.Stripped.SetID != 2 || merged.Stripped.Xattrs != 1 || merged.Entries != 4 {
		t.Errorf("got %+v, %v, want 2 set-id bits and 1 attribute of 4 entries", merged, err)
	}
}
