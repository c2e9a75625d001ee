package main

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// everyVerb calls visit with each verb that does something, and the words that are typed for it.
func everyVerb(t *testing.T, visit func(words []string, c *cobra.Command)) {
	t.Helper()
	root := command(strings.NewReader(""), io.Discard, io.Discard)
	var walk func(words []string, c *cobra.Command)
	walk = func(words []string, c *cobra.Command) {
		if c.RunE != nil && len(words) > 0 {
			visit(words, c)
		}
		for _, sub := range c.Commands() {
			walk(append(words[:len(words):len(words)], sub.Name()), sub)
		}
	}
	walk(nil, root)
}

func TestEveryVerbRefusesWhatItDoesNotKnowInOneLine(t *testing.T) {
	t.Parallel()
	verbs := 0
	everyVerb(t, func(words []string, c *cobra.Command) {
		verbs++
		typed := [][]string{append(words[:len(words):len(words)], "--no-such-flag")}
		if !strings.Contains(c.Use, "...") {
			typed = append(typed, append(words[:len(words):len(words)], "a", "b", "c", "d"))
		}
		for _, args := range typed {
			out, stderr, code := do(t, args...)
			if code != 2 || out != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "see `sandpiper help "+words[0]) {
				t.Errorf("%q: got code %d, %q, %q, want 2 and one line that says where help is", args, code, out, stderr)
			}
		}
	})
	if verbs < 40 {
		t.Errorf("got %d verbs, want all of them", verbs)
	}
}

func TestEveryWrongValueIsTypedWrong(t *testing.T) {
	t.Parallel()
	for _, typed := range []string{
		"module logs m --tail x", "module logs m --since -5m", "module logs m --stream out", "queue peek q -n 0", "queue peek q -n 1001", "receive -n -1", "hal watch door -n -1",
		"hal write pump full", "hal write pump 1 --for 0s", "deploy apply f --wait -1s", "twin --report {", "queue purge q", "module inspect m", "method call x --module m --timeout 1s",
		"module exec m --", "module exec -e x m ls",
	} {
		if _, stderr, code := do(t, append([]string{"--run-dir", t.TempDir()}, strings.Fields(typed)...)...); code != 2 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: got code %d and %q, want 2 and one line", typed, code, stderr)
		}
	}
}

func TestHelpSaysWhatAScriptNeedsToKnow(t *testing.T) {
	t.Parallel()
	out, _, code := do(t, "--help")
	for _, want := range []string{"0 done", "1 failed", "2 typed wrong", "130 and 143", "--json"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("got %d, %s, want %q in it", code, out, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if script, _, code := do(t, "completion", shell); code != 0 || !strings.Contains(script, "__complete") {
			t.Errorf("completion of %s: got code %d and %d bytes", shell, code, len(script))
		}
	}
}

// completes asks as a shell does for what may be typed next.
func (d *device) completes(typed ...string) string {
	d.t.Helper()
	stdout, _, code := d.run("", append([]string{"__complete"}, append(typed, "")...)...)
	if code != 0 {
		return "nothing"
	}
	return stdout
}

// TestOfADeviceWhatIsThereIsCompletedAndListed: every listing of a device with a module of each kind, as a program reads it.
func TestOfADeviceWhatIsThereIsCompletedAndListed(t *testing.T) {
	t.Parallel()
	d := startDevice(t, tank)
	lists := []string{"module list", "module stats", "queue list", "image list", "image gc", "hal list", "hal leases", "hal log", "check"}
	documents := func(when string) {
		t.Helper()
		for _, verb := range lists {
			stdout, stderr, code := d.run("", append(strings.Fields(verb), "--json")...)
			var list []map[string]any
			if err := json.Unmarshal([]byte(stdout), &list); err != nil || list == nil || stderr != "" || code != 0 && verb != "check" {
				t.Errorf("%s: %s: got code %d, %q, %q, %v, want a list", when, verb, code, stdout, stderr, err)
			}
			again, _, _ := d.run("", append(strings.Fields(verb), "--json")...)
			if names(t, again) != names(t, stdout) {
				t.Errorf("%s: %s: got %s and then %s", when, verb, stdout, again)
			}
		}
	}
	documents("a device with nothing on it")
	want := manifest(map[string]string{"r": toConsumer}, map[string]string{
		"producer": d.bundle("producer", `"$SANDPIPER" send --output out hello; while :; do sleep 0.2; done`), "consumer": d.bundle("consumer", `while :; do sleep 0.2; done`),
	})
	if _, stderr, code := d.run(want, "deploy", "apply", "-"); code != 0 {
		t.Fatal(stderr)
	}
	d.until("a message waits", func() (bool, string) {
		got := d.completes("queue", "peek")
		return strings.Contains(got, "modules/consumer/inputs/in\n"), got
	})
	documents("a device at work")
	for typed, want := range map[string]string{
		"module restart": "consumer\nproducer\n", "module logs -f": "consumer\nproducer\n", "module exec": "consumer\nproducer\n", "module stats": "consumer\nproducer\n", "twin get": "$edgeAgent\n",
		"hal read": "door", "hal watch": "door", "queue purge": "modules/consumer/inputs/in\n", "image pin": "producer 1.0.0", "image verify": "consumer 1.0.0", "module logs --stream": "stderr\n",
		"module": "restart\t", "hal sim set": "level",
	} {
		if got := d.completes(strings.Fields(typed)...); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q offered", typed, got, want)
		}
	}
}

// names are the members that name what is listed, in their order.
func names(t *testing.T, list string) string {
	t.Helper()
	var docs []map[string]any
	if err := json.Unmarshal([]byte(list), &docs); err != nil {
		t.Errorf("%s: %v", list, err)
	}
	var all []string
	for _, doc := range docs {
		for _, key := range []string{"name", "module", "sink", "digest", "area"} {
			if name, ok := doc[key].(string); ok {
				all = append(all, name)
			}
		}
	}
	return strings.Join(all, " ")
}
