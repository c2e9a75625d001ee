package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// Query asks for a page of at most size twins. next goes on behind it; it is empty at the end, and as the argument at the beginning.
func (o *Owner) Query(ctx context.Context, text string, size int, continuation string) (twins []json.RawMessage, next string, err error) {
	body, err := json.Marshal(struct {
		Query string `json:"query"`
	}{text})
	if err != nil {
		return nil, "", err
	}
	header := http.Header{}
	header.Set("x-ms-max-item-count", strconv.Itoa(size))
	if continuation != "" {
		header.Set("x-ms-continuation", continuation)
	}
	resp, err := o.open(ctx, http.MethodPost, "/devices/query", nil, header, body)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&twins); err != nil {
		return nil, "", fmt.Errorf("read twins: %w", err)
	}
	return twins, resp.Header.Get("x-ms-continuation"), nil
}
