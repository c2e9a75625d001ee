package image

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"https://example.com/a.spb?x=1", "file:///a/b.spb", "bundle:sha256:" + strings.Repeat("ab", 32), "nginx:1", "https://u:p@h/", "://",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		withoutCredentials(s)
		r, err := parseReference(s)
		if err != nil {
			return
		}
		set := 0
		printed := ""
		if r.url != nil {
			set++
			printed = r.url.String()
			if r.url.User != nil || r.url.Scheme != "https" {
				t.Errorf("reference %q: URL %v", s, r.url)
			}
		}
		if r.file != "" {
			set++
			if r.file[0] != '/' || strings.Contains(r.file, "/../") {
				t.Errorf("reference %q: file %q", s, r.file)
			}
		}
		if !r.present.IsZero() {
			set++
			printed = "bundle:" + r.present.String()
			if printed != s {
				t.Errorf("reference %q prints as %q", s, printed)
			}
		}
		if set != 1 && s != "bundle:sha256:"+strings.Repeat("0", 64) {
			t.Errorf("reference %q: %d meanings, want 1", s, set)
		}
	})
}

func FuzzParseMountinfo(f *testing.F) {
	if own, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		f.Add(own)
	}
	f.Add([]byte("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseMountinfo(bytes.NewReader(b)) })
}

func FuzzParseFloors(f *testing.F) {
	f.Add([]byte(`{"version":1,"modules":{"demo":{"sequence":3,"latest":4,"digest":"sha256:` + strings.Repeat("0a", 32) + `"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fl, err := parseFloors(b)
		if err != nil {
			return
		}
		text, err := fl.print()
		if err != nil {
			t.Fatalf("print: %v", err)
		}
		again, err := parseFloors(text)
		if err != nil {
			t.Fatalf("parse what was printed: %v", err)
		}
		if second, err := again.print(); err != nil || !bytes.Equal(text, second) {
			t.Errorf("floors: printed %s, then %s %v", text, second, err)
		}
	})
}

func FuzzParseNotes(f *testing.F) {
	f.Add([]byte(`{"version":1,"images":{"sha256:` + strings.Repeat("a", 64) + `":{"reference":"https://a/b","pinned":true,"checked":"2030-01-01T00:00:00Z"}}}`))
	f.Add([]byte(`{"version":1,"images":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := parseNotes(b); err == nil && n.Images == nil {
			t.Errorf("accepted %q as %v", b, n)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"digest":"sha256:` + strings.Repeat("a", 64) + `","image":{"digest":"sha256:` + strings.Repeat("b", 64) + `","size":4096},"names":["a.example/b:1"],"config":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseOCI(b); err == nil && (r.Digest.IsZero() || r.Image.Digest.IsZero()) {
			t.Errorf("accepted %q as %v", b, r)
		}
	})
}
