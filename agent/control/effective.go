package control

import (
	"context"
	"net/http"
	"net/url"

	"github.com/sandpiper-edge/sandpiper/sandbox/effective"
)

// Effective is what a module can really do, found out inside its sandbox.
type Effective struct {
	Module   string              `json:"module"`
	Findings []effective.Finding `json:"findings"`
	Drift    []effective.Drift   `json:"drift"` // where that differs from what it was granted
}

// Effective asks what a module can really do.
func (c *Client) Effective(ctx context.Context, module string) (Effective, error) {
	var doc Effective
	err := c.ask(ctx, http.MethodPost, "/modules/"+url.PathEscape(module)+"/effective", nil, &doc)
	return doc, err
}
