package state

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

// The table is part of the stored format: a change here is a migration.
func TestEscapingIsTheGoldenTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, id := range []string{
		"edge1", "Edge_1-a", "$edgeAgent", "$edgeHub", "_", "__", "a.b", "a=b", "a b", "a*b", "a>b", "a/b",
		"+", "%", "#", "?", "!", "(", ")", ",", ":", "@", "'", "=", ".", "é",
	} {
		b.WriteString(id + "\t" + escape(id) + "\n")
	}
	golden(t, "escape.golden", b.String())
}

func TestUnescapeRefusesWhatEscapeNeverWrites(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"empty":             "",
		"lone underscore":   "_",
		"cut escape":        "a=2",
		"lower-case escape": "=2e",
		"escaped plain":     "=41",
		"bare dot":          "a.b",
		"not hexadecimal":   "=GG",
		"too long":          strings.Repeat("a", maxToken+1),
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := unescape(token); err == nil {
				t.Errorf("unescape(%q): got %q, want an error", token, got)
			}
		})
	}
}

func FuzzEscape(f *testing.F) {
	for _, seed := range []string{"edge1", "$edgeAgent", "_", "a.b=c", "\x00\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if id == "" || len(id) > 128 {
			t.Skip()
		}
		token := escape(id)
		if strings.ContainsAny(token, ". *>\t\r\n") {
			t.Fatalf("escape(%q): got %q, want one subject token", id, token)
		}
		got, err := unescape(token)
		if err != nil || got != id {
			t.Fatalf("unescape(escape(%q)): got %q, %v", id, got, err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{"edge1.id", "edge1.m.=24edgeAgent.svc", "a.b.c", "=5F.rep", "x.m._.id"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParseKey(text)
		if err != nil {
			return
		}
		if got := key.String(); got != text {
			t.Fatalf("ParseKey(%q).String(): got %q", text, got)
		}
	})
}

func TestHubNameIsTheFirstLabel(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		host, want string
		bad        bool
	}{
		"a full name":   {host: "Contoso.azure-devices.net", want: "contoso"},
		"a bare name":   {host: "localhost", want: "localhost"},
		"an address":    {host: "127.0.0.1", want: "127"},
		"too short":     {host: "ab.example", bad: true},
		"not a label":   {host: "a_b_c.example", bad: true},
		"empty":         {host: "", bad: true},
		"a star":        {host: "hub*.example", bad: true},
		"fifty-one":     {host: strings.Repeat("a", 51), bad: true},
		"fifty is fine": {host: strings.Repeat("a", 50), want: strings.Repeat("a", 50)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := HubName(tt.host)
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("HubName(%q): got %q, %v, want %q, error %v", tt.host, got, err, tt.want, tt.bad)
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}
