package broker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

const nodePackages = "../../build/sdk/node/node_modules"

// house runs fn on a thread in a network namespace of its own, whose loopback is up: what it listens on and starts is in there, and
// ports that the SDKs have as literals are free. The thread ends with fn, the namespace with the last socket and process in it.
func house(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not fit for anybody else
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(s) }()
			lo, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			lo.SetUint16(unix.IFF_UP)
			if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
				return err
			}
			return fn()
		}()
	}()
	return <-done
}

// line is what the module printed.
type line struct {
	What  string          `json:"what"`
	Value json.RawMessage `json:"value"`
}

func TestSDKNodeModuleTalksToTheBroker(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED: the Node SDK is NOT tested: node is not installed")
	}
	if _, err := os.Stat(filepath.Join(nodePackages, "azure-iot-device-mqtt")); err != nil {
		t.Skipf("SKIPPED: the Node SDK is NOT tested: %v; run make sdk's set-up first", err)
	}
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: the Node SDK is NOT tested: a network namespace needs root")
	}
	packages, err := filepath.Abs(nodePackages)
	if err != nil {
		t.Fatal(err)
	}
	server, _, bundle := authority(t)
	bundleFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundleFile, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	key := iothub.NewKey()
	r := newRig(t, settings{
		tls:      server,
		auth:     func(_ mqtt.Hello, user iothub.UserName) (iothub.ID, error) { return user.ID, nil },
		anyToken: true,
		routes: []string{
			`FROM /messages/modules/mod1/outputs/out1 INTO BrokeredEndpoint("/modules/mod1/inputs/in1")`,
			`FROM /messages/modules/mod1/* INTO $upstream`,
		},
	})
	r.desire(mod1, `{"color":"red"}`)
	r.broker.HandleMethod(mod2, func(_ context.Context, req iothub.MethodRequest) iothub.MethodResult {
		return iothub.MethodResult{Status: 200, Payload: req.Payload}
	})

	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	module := exec.CommandContext(ctx, node, "testdata/module.js")
	module.Env = []string{
		"NODE_PATH=" + packages, "HOME=" + t.TempDir(), "EdgeModuleCACertificateFile=" + bundleFile,
		"EdgeHubConnectionString=HostName=hub.example.net;DeviceId=edge1;ModuleId=mod1;SharedAccessKey=" + key.Text() + ";GatewayHostName=localhost",
	}
	module.Stderr = os.Stderr
	stdin, err := module.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := module.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var doors [2]net.Listener
	err = house(func() error {
		for i, addr := range []string{":8883", ":443"} {
			l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			doors[i] = l
		}
		return module.Start()
	})
	if errors.Is(err, unix.EPERM) {
		t.Skipf("SKIPPED: the Node SDK is NOT tested: no network namespace here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.serve(doors[0], doors[1])

	t.Cleanup(func() {
		cancel()
		_ = module.Wait() // an error when it has been waited for
	})
	said := map[string]string{}
	lines := bufio.NewScanner(stdout)
	until := func(words ...string) {
		t.Helper()
		for {
			if !slices.ContainsFunc(words, func(w string) bool { _, ok := said[w]; return !ok }) {
				return
			}
			if !lines.Scan() {
				t.Fatalf("module ended after %v (%v), want %v", said, lines.Err(), words)
			}
			var l line
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Fatalf("module said %q: %v", lines.Text(), err)
			}
			said[l.What] = string(l.Value)
			if l.What == "failed" || l.What == "error" {
				t.Fatalf("module: %s", l.Value)
			}
		}
	}
	until("ready", "input")
	for name, want := range map[string]string{"twin": `"red"`, "refused": "true", "called": `"hello"`, "input": `"in1:to myself"`} {
		if got := said[name]; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if got, want := r.waiting("upstream/mod1"), []string{"to myself", "to the hub"}; !slices.Equal(got, want) {
		t.Errorf("got %q for the hub, want %q", got, want)
	}
	if got := string(r.twins.Snapshot(mod1).Reported); got != `{"seen":1}` {
		t.Errorf("got reported %s, want the accepted patch alone", got)
	}
	got, err := r.broker.Call(ctx, mod1, iothub.MethodRequest{Name: "double", Payload: json.RawMessage(`{"n":21}`), ConnectTimeout: 10 * time.Second})
	if err != nil || got.Status != 200 || string(got.Payload) != `{"n":42}` {
		t.Errorf("got %d %s, %v from the method, want 200 and 42", got.Status, got.Payload, err)
	}
	got, err = r.broker.Call(ctx, mod1, iothub.MethodRequest{Name: "nothing"})
	if err != nil || got.Status != 204 {
		t.Errorf("got %d %s, %v from a method without payloads, want 204", got.Status, got.Payload, err)
	}
	r.desire(mod1, `{"color":"blue"}`)
	for said["desired"] != `{"color":"blue","$version":3}` { // the first event is what the twin was when the listener came
		delete(said, "desired")
		until("desired")
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	until("closed")
	if err := module.Wait(); err != nil {
		t.Errorf("module: %v", err)
	}
}
