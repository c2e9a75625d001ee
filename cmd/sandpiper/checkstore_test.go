package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/store"
)

func TestCheckStoreOpensTheStoreWhenNoAgentRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "state_dir = %q\nrun_dir = %q\n", filepath.Join(dir, "state"), filepath.Join(dir, "run")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	check := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"--run-dir", filepath.Join(dir, "run"), "check", "store", "--config", config}, args...), strings.NewReader(""), &out, &errs)
		return code, out.String() + errs.String()
	}
	if code, out := check(); code != 0 || !strings.Contains(out, "store: ok") || !strings.Contains(out, "no agent runs") {
		t.Errorf("got %d, %s, want a store that is well", code, out)
	}
	if code, out := check("--json"); code != 0 || !strings.Contains(out, `"health": "ok"`) {
		t.Errorf("got %d, %s, want JSON", code, out)
	}
	held, err := store.Open(store.Config{Dir: filepath.Join(dir, "state", "store")})
	if err != nil {
		t.Fatal(err)
	}
	if code, out := check(); code != 1 || !strings.Contains(out, "--run-dir") {
		t.Errorf("a store in use: got %d, %s, want the remedy", code, out)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state", "store", "state.db"), bytes.Repeat([]byte("x"), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := check(); code != 1 || !strings.Contains(out, "problem: the disk damaged the store") {
		t.Errorf("a damaged store: got %d, %s, want the problem", code, out)
	}
}

func TestAnAgentThatCannotListenEndsAndSaysWhy(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SANDBOX TESTS DO NOT RUN: they need root for namespaces, mounts and cgroups")
	}
	dir, err := os.MkdirTemp("", "sandpiper-test-") //nolint:usetesting // modules must be able to walk to it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // of the test alone
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.toml")
	text := fmt.Appendf(nil, "state_dir = %q\nrun_dir = %q\n[listen]\nmqtt = [\"203.0.113.9:8883\"]\n", filepath.Join(dir, "state"), filepath.Join(dir, "run"))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"agent", "--child", "--config", config}, strings.NewReader(""), &out, &errs)
	if code != 1 || !strings.Contains(errs.String(), "listen.mqtt") {
		t.Errorf("got %d, %s, want the address and an end", code, errs.String())
	}
}
