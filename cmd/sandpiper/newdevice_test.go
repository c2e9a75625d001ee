package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// status is what an operator reads.
func (d *device) status() string {
	d.t.Helper()
	var out, errs bytes.Buffer
	if code := run(d.t.Context(), []string{"--run-dir", d.path("run"), "status"}, strings.NewReader(""), &out, &errs); code != 0 {
		d.t.Fatalf("status: got %d, %s", code, errs.String())
	}
	return out.String()
}

func TestADeviceThatNeverReachedItsHubSaysSo(t *testing.T) {
	t.Parallel()
	d := startDevice(t, `connection_string = "HostName=hub.sandpiper.test;DeviceId=edge1;SharedAccessKey=c2VjcmV0"
[upstream]
mqtt_address = "127.0.0.1:1"
https_address = "127.0.0.1:1"
`)
	d.until("the problem is told", func() (bool, string) {
		said := d.status()
		return strings.Contains(said, "problem: the hub was not told of the modules of this device: ") && strings.Contains(said, "127.0.0.1:1: connect: connection refused\n"), said
	})
}

func TestADeviceToWhichNothingIsDeployedYetHasNoProblem(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	made, err := h.Owner.Create(t.Context(), hub.NewIdentity{ID: iothub.ID{Device: "edge1"}, Edge: true})
	if err != nil {
		t.Fatal(err)
	}
	connection, err := h.Owner.ConnectionString(made)
	if err != nil {
		t.Fatal(err)
	}
	d := startDevice(t, fmt.Sprintf("connection_string = %q\n[upstream]\nmqtt_address = %q\nhttps_address = %q\ntrusted_ca = %q\n",
		connection.Reveal(), h.MQTT, h.HTTPS, hub.CAFile(h.Dir)))
	d.until("its twin has come", func() (bool, string) {
		said := d.status()
		return strings.Contains(said, "deployment: none yet; apply one at the hub\n"), said
	})
	if said := d.status(); strings.Contains(said, "problem: the") { // what the kernel lacks is another matter
		t.Errorf("got\n%swant no problem of the hub or the deployment", said)
	}
}
