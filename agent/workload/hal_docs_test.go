package workload

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// moduleSocket serves a module's side where a module has it: on a unix socket.
func moduleSocket(t *testing.T) string {
	t.Helper()
	k, _ := pinBoard(t)
	dir, err := os.MkdirTemp("", "hal-") //nolint:usetesting // the path of a unix socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: k.handler()}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return path
}

func example(t *testing.T, language string) string {
	t.Helper()
	raw, err := os.ReadFile("../../hal/MODULES.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```").FindStringSubmatch(string(raw))
	if m == nil {
		t.Fatalf("no example in %s: this test guards nothing", language)
	}
	return m[1]
}

func TestTheExamplesWithCurlWork(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("SKIPPED: no curl here, so the examples of MODULES.md are not tried")
	}
	socket := moduleSocket(t)
	for line := range strings.Lines(example(t, "sh")) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(strings.TrimSpace(line), "curl ", "curl -sS --fail-with-body ", 1))
		cmd.Env = append(os.Environ(), "SOCKET="+socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
	}
}

func TestTheExampleInPythonWorks(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("SKIPPED: no python3 here, so the example of MODULES.md is not tried")
	}
	cmd := exec.CommandContext(t.Context(), "python3", "-c", example(t, "python"))
	cmd.Env = append(os.Environ(), "SOCKET="+moduleSocket(t))
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Errorf("got %v and %s, want the door that follows the relay", err, out)
	}
}
