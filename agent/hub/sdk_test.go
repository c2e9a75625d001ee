package hub_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
)

// The public npm packages, unmodified, against a hub on the ports they insist on, at a loopback address of this test's own.
func TestSDKNodeServiceAndDeviceClients(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED, NOT PASSED: node is not installed; `make setup` does that")
	}
	packages, err := filepath.Abs("../../build/sdk/node/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"azure-iothub", "azure-iot-device", "azure-iot-device-mqtt"} {
		if _, err := os.Stat(filepath.Join(packages, name)); err != nil {
			t.Skipf("SKIPPED, NOT PASSED: npm package %s is not in build/sdk/node; `make setup` puts it there", name)
		}
	}
	address := ownLoopback(t)
	h := hubtest.New(t, hubtest.Options{Host: address, MQTT: address + ":8883", HTTPS: address + ":443"})
	connection, err := os.ReadFile(hub.ConnectionFile(h.Dir))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	script := exec.CommandContext(ctx, node, "testdata/sdk/service.js")
	script.Env = append(os.Environ(),
		"NODE_PATH="+packages, "NODE_EXTRA_CA_CERTS="+hub.CAFile(h.Dir),
		"HUB_CONNECTION="+strings.TrimSpace(string(connection)), "HUB_HOST="+address)
	out, err := script.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("script: %v", err)
	}
	events, err := h.Telemetry(t.Context(), "node1")
	if err != nil || len(events) != 2 {
		t.Fatalf("events: got %+v, %v, want two", events, err)
	}
	for i, want := range []string{"m-mqtt", "m-websocket"} {
		if e := events[i]; e.System["$.mid"] != want || e.Properties["a b"] != "c/d" {
			t.Errorf("event %d: got %+v, want message id %s", i, e, want)
		}
	}
}

// ownLoopback is an address of 127.0.0.0/8 whose ports 443 and 8883 are free and may be taken.
func ownLoopback(t *testing.T) string {
	t.Helper()
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	address := fmt.Sprintf("127.%d.%d.%d", b[0]|1, b[1], b[2]|1)
	for _, port := range []string{"443", "8883"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(address, port))
		if err != nil {
			t.Skipf("SKIPPED, NOT PASSED: the SDKs know ports 443 and 8883 only, and this user may not take them: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return address
}
