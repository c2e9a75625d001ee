package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestMain lets the test binary be the device binary: tests run it with a verb as its first argument, and so does a module
// inside a sandbox.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "hostile" {
		os.Exit(hostile(os.Args[2]))
	}
	if len(os.Args) > 2 && (os.Args[1] == "listen" || os.Args[1] == "dial") {
		os.Exit(listenAndDial(os.Args[1], os.Args[2]))
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		main()
	}
	os.Exit(m.Run())
}

// do runs the command in this process.
func do(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

func TestAWrongCommandLineIsOneLineAndExitCodeTwo(t *testing.T) {
	t.Parallel()
	for claim, args := range map[string][]string{
		"an unknown verb":           {"explode"},
		"an unknown flag":           {"status", "--colour"},
		"a missing argument":        {"module", "restart"},
		"a verb that is none":       {"module", "reboot", "filter"},
		"a property without '='":    {"send", "--output", "o", "--property", "x", "body"},
		"a payload that is no JSON": {"method", "call", "--module", "m", "--payload", "{", "x"},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			_, stderr, code := do(t, args...)
			if code != 2 || strings.Count(stderr, "\n") != 1 {
				t.Errorf("got code %d and %q, want 2 and one line", code, stderr)
			}
		})
	}
}

func TestWithoutAnAgentEveryVerbSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, args := range [][]string{{"status"}, {"module", "list"}, {"queue", "list"}, {"twin", "get", "m"}, {"deploy", "show"}} {
		_, stderr, code := do(t, append([]string{"--run-dir", dir}, args...)...)
		if code != 1 || !strings.Contains(stderr, "start it with `sandpiper agent`") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: got code %d and %q, want 1 and the remedy on one line", args, code, stderr)
		}
	}
}

func TestAVerbOfTheInsideSaysOutsideThatItIsOne(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"twin"}, {"send", "--output", "o", "body"}, {"receive"}, {"method", "call", "x", "--module", "m"}} {
		_, stderr, code := do(t, append(args, "--socket", t.TempDir()+"/module.sock")...)
		if code != 1 || !strings.Contains(stderr, "inside") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: got code %d and %q, want 1 and one line that says where it works", args, code, stderr)
		}
	}
}

func TestAWrongConfigurationEndsTheAgentWithOneLine(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/c.toml"
	if err := os.WriteFile(file, []byte("state_dir = \"/x\"\nstat = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := do(t, "agent", "--config", file)
	if code != 2 || !strings.Contains(stderr, "c.toml:2: unknown key \"stat\"") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("got code %d and %q, want 2 and file, line and key", code, stderr)
	}
}

func TestVersionNamesWhatIsLinkedIn(t *testing.T) {
	t.Parallel()
	out, _, code := do(t, "version", "--json")
	if code != 0 || !strings.Contains(out, `"version": "dev"`) || !strings.Contains(out, `"arch"`) {
		t.Errorf("got code %d and %q", code, out)
	}
}
