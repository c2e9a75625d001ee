package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/message"
)

// MaxPeek is how many messages one look into a queue returns at most.
const MaxPeek = 1000

// QueueItem is one stored message, looked at and not taken.
type QueueItem struct {
	Seq        uint64            `json:"seq"`
	Priority   int               `json:"priority"`
	Stored     time.Time         `json:"stored,omitzero"`
	From       string            `json:"from"`
	Output     string            `json:"output,omitempty"`
	Properties map[string]string `json:"properties,omitempty"`
	Bytes      int               `json:"bytes"` // of the body
	Body       []byte            `json:"body"`  // base64 in JSON
	Fault      string            `json:"fault,omitempty"`
}

// Purged is how many messages were dropped or acknowledged.
type Purged struct {
	Messages int `json:"messages"`
}

// QueueFuncs are what the operator can do with the queues. The zero value offers nothing.
type QueueFuncs struct {
	Peek    func(ctx context.Context, sink string, max int) ([]QueueItem, error)
	Purge   func(ctx context.Context, sink string) (Purged, error)
	Export  func(ctx context.Context, sinks []string, w io.Writer) error // a whole export, or none: a broken one has no end
	Receipt func(ctx context.Context, receipt []byte) (Purged, error)
}

func (s *Server) queueRoutes() {
	q := s.cfg.Queue
	if q.Peek == nil {
		return
	}
	s.mux.HandleFunc("GET /queue/items", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("max"))
		if err != nil || n < 1 || n > MaxPeek {
			s.answer(w, nil, fmt.Errorf("max: want 1 to %d: %w", MaxPeek, ErrRefused))
			return
		}
		doc, err := q.Peek(r.Context(), r.URL.Query().Get("sink"), n)
		s.answer(w, doc, err)
	})
	s.mux.HandleFunc("DELETE /queue/items", func(w http.ResponseWriter, r *http.Request) {
		doc, err := q.Purge(r.Context(), r.URL.Query().Get("sink"))
		s.answer(w, doc, err)
	})
	s.mux.HandleFunc("GET /queue/export", func(w http.ResponseWriter, r *http.Request) {
		out := &body{w: w, kind: "application/octet-stream"}
		if err := q.Export(r.Context(), r.URL.Query()["sink"], out); err != nil {
			if !out.wrote {
				s.answer(w, nil, err)
				return
			}
			s.cfg.Logger.Warn("export ended early", "err", err) // the reader misses its end
		}
	})
	s.mux.HandleFunc("POST /queue/receipt", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, message.MaxReceipt))
		if err != nil {
			s.answer(w, nil, fmt.Errorf("read receipt: %w", err))
			return
		}
		doc, err := q.Receipt(r.Context(), body)
		s.answer(w, doc, err)
	})
}

// Peek looks at the first messages of a queue.
func (c *Client) Peek(ctx context.Context, sink string, n int) ([]QueueItem, error) {
	var doc []QueueItem
	err := c.ask(ctx, http.MethodGet, "/queue/items?"+url.Values{"sink": {sink}, "max": {strconv.Itoa(n)}}.Encode(), nil, &doc)
	return doc, err
}

// Purge drops everything that waits in a queue.
func (c *Client) Purge(ctx context.Context, sink string) (Purged, error) {
	var doc Purged
	err := c.ask(ctx, http.MethodDelete, "/queue/items?"+url.Values{"sink": {sink}}.Encode(), nil, &doc)
	return doc, err
}

// Export writes an export of what waits for the hub (of some queues, or of all) and returns how many messages it holds. After an error
// what was written is no export.
func (c *Client) Export(ctx context.Context, sinks []string, w io.Writer) (uint64, error) {
	body, err := c.open(ctx, http.MethodGet, "/queue/export?"+url.Values{"sink": sinks}.Encode(), nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	r, err := message.NewExportReader(io.TeeReader(body, w))
	if err != nil {
		return 0, fmt.Errorf("the agent ended the export early; see its log: %w", err)
	}
	for n := uint64(0); ; n++ {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, fmt.Errorf("the agent ended the export early; see its log: %w", err)
		}
	}
}

// Receipt acknowledges what a hub took from an export.
func (c *Client) Receipt(ctx context.Context, receipt []byte) (Purged, error) {
	var doc Purged
	err := c.ask(ctx, http.MethodPost, "/queue/receipt", receipt, &doc)
	return doc, err
}
