package hub

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

// Import hands an export of a device's queue to the hub and returns its receipt, as JSON for the device.
func (o *Owner) Import(ctx context.Context, export io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+o.host+"/imports?api-version="+iothub.APIVersion, export)
	if err != nil {
		return nil, err
	}
	token, err := iothub.MintToken(o.host, o.policy, o.now().Add(tokenLife), o.key.Signer())
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", token.Reveal())
	resp, err := o.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, message.MaxReceipt))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, iothub.ParseError(resp.StatusCode, raw[:min(len(raw), iothub.MaxErrorBody)])
	}
	return raw, nil
}
