package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// typed runs the command as typed and returns its exit code and what it printed.
func typed(t *testing.T, dir, stdin string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), append([]string{"--dir", dir}, args...), strings.NewReader(stdin), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// Every verb, once, in the order in which an operator would come to it.
func TestAnOperatorsDay(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	manifest := filepath.Join(t.TempDir(), "manifest.json")
	content := `{"modulesContent":{"$edgeAgent":{"properties.desired":{"schemaVersion":"1.1","runtime":{"type":"docker","settings":{}},"modules":{}}},` +
		`"gauge":{"properties.desired":{"unit":"bar"}}}}`
	if err := os.WriteFile(manifest, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name, stdin string
		args        []string
		code        int
		says        string // in what is printed, or for a failure in the error
	}{
		{"a device is created", "", []string{"device", "create", "edge1"}, 0, "HostName=" + h.Host + ";DeviceId=edge1;SharedAccessKey="},
		{"but once", "", []string{"device", "create", "edge1"}, 1, "exists already"},
		{"devices are listed", "", []string{"device", "list"}, 0, "edge1"},
		{"and as JSON", "", []string{"device", "list", "--json"}, 0, `"deviceId": "edge1"`},
		{"a device is shown", "", []string{"device", "show", "edge1"}, 0, `"generationId"`},
		{"its connection string", "", []string{"device", "connection-string", "edge1"}, 0, "SharedAccessKey="},
		{"a module is created", "", []string{"module", "create", "edge1", "filter"}, 0, "ModuleId=filter"},
		{"modules are listed", "", []string{"module", "list", "edge1"}, 0, "filter"},
		{"a twin is changed", "", []string{"twin", "set", "edge1", "filter", `{"threshold":70}`}, 0, ""},
		{"from standard input", `{"mode":"on"}`, []string{"twin", "set", "edge1", "filter", "-"}, 0, ""},
		{"and its tags", "", []string{"twin", "set", "edge1", "--tags", `{"building":"43"}`}, 0, ""},
		{"a twin is read", "", []string{"twin", "get", "edge1", "filter"}, 0, `"threshold": 70`},
		{"a patch that is none", "", []string{"twin", "set", "edge1", "{"}, 2, "not JSON"},
		{"a patch over a limit", "", []string{"twin", "set", "edge1", `{"a.b":1}`}, 1, "a.b"},
		{"a manifest is applied", "", []string{"deploy", "apply", "edge1", manifest}, 0, ""},
		{"a manifest that is not there", "", []string{"deploy", "apply", "edge1", manifest + "x"}, 1, "no such file"},
		{"its module has its twin", "", []string{"twin", "get", "edge1", "gauge"}, 0, `"unit": "bar"`},
		{"nobody answers a method", "", []string{"method", "call", "edge1", "blink"}, 1, "404103"},
		{"events, none", "", []string{"events", "--json"}, 0, ""},
		{"all events", "", []string{"events", "--all", "--since", "1h", "--json"}, 0, `"kind":"lifeCycle"`},
		{"its version", "", []string{"version"}, 0, "sandpiper-hub dev linux/"},
		{"its version as JSON", "", []string{"version", "--json"}, 0, `"version": "dev"`},
		{"a shell that is none", "", []string{"completion", "tcsh"}, 2, "tcsh"},
		{"a verb is missing", "", []string{"device"}, 2, "verb"},
		{"a verb is wrong", "", []string{"device", "explode"}, 2, "explode"},
		{"a flag is wrong", "", []string{"events", "--now"}, 2, "--now"},
		{"a time is wrong", "", []string{"events", "--since", "yesterday"}, 2, "yesterday"},
		{"a module is deleted", "", []string{"module", "delete", "edge1", "filter"}, 0, ""},
		{"a device is deleted", "", []string{"device", "delete", "edge1"}, 0, ""},
		{"and is gone", "", []string{"device", "show", "edge1"}, 1, "not registered"},
	}
	for _, s := range steps {
		code, out, errs := typed(t, h.Dir, s.stdin, s.args...)
		said := out
		if s.code != 0 {
			said = errs
		}
		if code != s.code || !strings.Contains(said, s.says) || strings.Count(errs, "\n") > 1 {
			t.Errorf("%s: got exit code %d, %q, %q, want %d and %q", s.name, code, out, errs, s.code, s.says)
		}
	}
}

func TestNoHubIsSaidInOneLineWithTheRemedy(t *testing.T) {
	t.Parallel()
	code, _, errs := typed(t, t.TempDir(), "", "device", "list")
	if code != 1 || !strings.Contains(errs, "sandpiper-hub serve") || strings.Count(errs, "\n") != 1 {
		t.Errorf("got %d %q, want one line that says to start one", code, errs)
	}
}

func TestAnAddressThatIsNoneIsSaidInOneLine(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--mqtt", "--https"} {
		code, _, errs := typed(t, t.TempDir(), "", "serve", "--mqtt", "127.0.0.1:0", "--https", "127.0.0.1:0", flag, "nowhere")
		if code != 1 || !strings.Contains(errs, "choose another with "+flag) {
			t.Errorf("%s: got %d %q, want one line that names the flag", flag, code, errs)
		}
	}
}

// The binary's own serve, from start to the stop that SIGTERM asks for, with a device in between.
func TestServeRunsUntilItIsToldToStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	code, rest := make(chan int, 1), make(chan string, 1)
	var stderr bytes.Buffer
	said, stdout := io.Pipe()
	go func() {
		code <- run(ctx, []string{"--dir", dir, "serve", "--host", "hub.sandpiper.test", "--mqtt", "127.0.0.1:0", "--https", "127.0.0.1:0"}, nil, stdout, &stderr)
		stdout.Close()
	}()
	lines := bufio.NewReader(said)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("%v: exit code %d, %s", err, <-code, stderr.String())
	}
	made, connection, errs := typed(t, dir, "", "device", "create", "edge1") // whoever has read where it listens can use it
	if made != 0 {
		t.Errorf("a verb after %q: got exit code %d, %s, want 0", first, made, errs)
	}
	go func() {
		more, _ := io.ReadAll(lines)
		rest <- string(more)
	}()
	cs, err := iothub.ParseConnectionString(iothub.Secret(strings.TrimSpace(connection)))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if got := <-code; got != 0 {
		t.Errorf("exit code: got %d, %s, want 0", got, stderr.String())
	}
	if more := <-rest; !strings.Contains(more, filepath.Join(dir, "ca.pem")) {
		t.Errorf("start: got %q and %q, want the authority's path", first, more)
	}
	info, err := os.Stat(filepath.Join(dir, "iothubowner.connection"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("connection string file: got %v, %v, want mode 0600", info, err)
	}

	h := hubtest.New(t, hubtest.Options{Dir: dir}) // what was registered is still there
	token, err := hubtest.Token(cs)
	if err != nil {
		t.Fatal(err)
	}
	c, err := mqtttest.Dial(t.Context(), func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: h.TLS()}).DialContext(ctx, "tcp", h.MQTT)
	}, mqtttest.Options{
		ClientID: "edge1", UserName: iothub.UserName{Hub: h.Host, ID: cs.ID, APIVersion: iothub.APIVersion}.String(), Password: token.Reveal(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	if err := c.Publish(t.Context(), "devices/edge1/messages/events/%24.mid=m1", []byte(`{"t":21}`), 1); err != nil {
		t.Fatal(err)
	}
	_, out, errs := typed(t, dir, "", "events", "--json", "--device", "edge1")
	var e struct {
		Device string            `json:"deviceId"`
		System map[string]string `json:"systemProperties"`
		Body   json.RawMessage   `json:"body"`
	}
	if err := json.Unmarshal([]byte(out), &e); err != nil || e.Device != "edge1" || e.System["$.mid"] != "m1" || string(e.Body) != `{"t":21}` {
		t.Errorf("events: got %q %q, %v", out, errs, err)
	}
	if _, out, _ := typed(t, dir, "", "events"); !strings.Contains(out, `edge1  {"t":21}`) {
		t.Errorf("events for people: got %q", out)
	}
}
