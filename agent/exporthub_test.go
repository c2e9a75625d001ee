package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/hub/hubtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// The whole way of the USB stick, with the two ends as they are: the device signs, the hub takes, its receipt frees the queue. Once with
// a key and once with a certificate.
func TestWhatTheStickCarriesArrivesAndIsFreed(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t, hubtest.Options{})
	pair, _ := certtest.New(t, "")
	sum := sha256.Sum256(pair.Certificate[0])
	for device, identity := range map[string]hub.NewIdentity{
		"bykey":  {ID: iothub.ID{Device: "bykey"}, Edge: true},
		"bycert": {ID: iothub.ID{Device: "bycert"}, Edge: true, Thumbprint: []string{hex.EncodeToString(sum[:])}},
	} {
		made, err := h.Owner.Create(t.Context(), identity)
		if err != nil {
			t.Fatal(err)
		}
		a := queueRig(t)
		a.dev.hub, a.dev.id = h.Host, device
		if device == "bycert" {
			a.dev.key, a.dev.pair = nil, &pair
			a.cfg.Upstream.TrustedCA = filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(a.cfg.Upstream.TrustedCA, h.CA, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if text, err := h.Owner.ConnectionString(made); err != nil {
			t.Fatal(err)
		} else if cs, err := iothub.ParseConnectionString(text); err != nil {
			t.Fatal(err)
		} else {
			a.dev.key = cs.Key
		}
		a.fill(t, "upstream/m", 10, 300)
		a.fill(t, "upstream/_", 3, 2)
		var stick bytes.Buffer
		if err := a.exportQueue(t.Context(), nil, &stick); err != nil {
			t.Fatalf("%s: export: %v", device, err)
		}
		took, err := h.Owner.Import(t.Context(), bytes.NewReader(stick.Bytes()))
		if err != nil || took.Messages != 302 || took.New != 302 || took.Device != device {
			t.Fatalf("%s: import: got %+v, %v, want 302 new", device, took, err)
		}
		freed, err := a.takeReceipt(t.Context(), took.Receipt)
		if err != nil || freed.Messages != 302 || a.left(t, "upstream/m") != 0 {
			t.Errorf("%s: receipt: got %+v, %v, %d left, want 302 freed and none left", device, freed, err, a.left(t, "upstream/m"))
		}
		events := 0
		if err := h.Owner.Events(t.Context(), hub.EventQuery{Device: device}, func(hub.Event) error { events++; return nil }); err != nil || events != 302 {
			t.Errorf("%s: got %d events at the hub, %v, want 302", device, events, err)
		}
	}
}
