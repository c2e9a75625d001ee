package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

// Imported is what a hub took from an export.
type Imported struct {
	Device   string          `json:"device"`
	Messages uint64          `json:"messages"` // of the export
	New      uint64          `json:"new"`      // not taken from an earlier export
	Receipt  json.RawMessage `json:"receipt"`  // for the device
}

// Import hands an export of a device's queue to the hub.
func (o *Owner) Import(ctx context.Context, export io.Reader) (Imported, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+o.host+"/imports?api-version="+iothub.APIVersion, export)
	if err != nil {
		return Imported{}, err
	}
	token, err := iothub.MintToken(o.host, o.policy, o.now().Add(tokenLife), o.key.Signer())
	if err != nil {
		return Imported{}, err
	}
	req.Header.Set("Authorization", token.Reveal())
	resp, err := o.http.Do(req)
	if err != nil {
		return Imported{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, message.MaxReceipt))
	if err != nil {
		return Imported{}, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return Imported{}, iothub.ParseError(resp.StatusCode, raw[:min(len(raw), iothub.MaxErrorBody)])
	}
	r, err := message.ParseReceipt(raw)
	if err != nil {
		return Imported{}, err
	}
	out := Imported{Device: r.Device, Receipt: raw}
	for _, l := range r.Lanes {
		out.Messages, out.New = out.Messages+l.Messages, out.New+l.New
	}
	return out, nil
}
