package deployment

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares got with a file in testdata.
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
		t.Errorf("%s differs (go test -update rewrites it):\ngot\n%s\nwant\n%s", path, got, want)
	}
}

// deployment is a $edgeAgent section of one module with these members.
func deploymentOf(module string) string {
	return `{"schemaVersion":"1.1","modules":{"m":` + module + `}}`
}

func parseAgent(t testing.TB, text string) Agent {
	t.Helper()
	a, err := ParseAgent([]byte(text))
	if err != nil {
		t.Fatalf("parse %s: %v", text, err)
	}
	return a
}

// refusal is the text of the error, after checking what every error promises.
func refusal(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	e, ok := err.(*Error) //nolint:errorlint // the promise is that it is not wrapped
	if !ok || e.Path == "" || e.Why == "" || e.Code < 400 || strings.ContainsAny(err.Error(), "\n\r") {
		t.Errorf("got %T %#v, want an *Error with path, reason and code, on one line", err, err)
	}
	return err.Error()
}
