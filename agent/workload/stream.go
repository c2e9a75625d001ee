package workload

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// ids makes names for what waits for an answer. They differ from those of an earlier run of the agent, so that a late answer to
// something of before a restart fits nothing.
type ids struct {
	run  string
	last atomic.Uint64
}

func newIDs() *ids {
	raw := make([]byte, 4)
	rand.Read(raw) // never fails: it ends the process instead
	return &ids{run: hex.EncodeToString(raw)}
}

func (n *ids) next() string { return n.run + "." + strconv.FormatUint(n.last.Add(1), 10) }

// streams are the streams that a module has open, one of a kind.
type streams struct {
	mu   sync.Mutex
	open map[string]bool
}

func (s *streams) enter(kind string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[kind] {
		return false
	}
	if s.open == nil {
		s.open = map[string]bool{}
	}
	s.open[kind] = true
	return true
}

func (s *streams) leave(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, kind)
}

var errEnded = errors.New("stream has ended")

// stream is an answer that goes on. Its write may be called from several goroutines.
type stream struct {
	cancel  context.CancelFunc // of the context that open returned
	control *http.ResponseController

	mu    sync.Mutex // guards what follows
	feed  feed
	ended bool // the request is over, and what it wrote to with it
}

// open begins a stream of a kind, or answers that there is one. The context ends with the request, or when the client takes
// nothing any more. The caller ends the stream with close.
func (k *socket) open(w http.ResponseWriter, r *http.Request, kind string) (context.Context, *stream, bool) {
	if !k.streams.enter(kind) {
		fail(w, http.StatusConflict, "another stream of %s is open; one per module is served", kind)
		return nil, nil, false
	}
	unbounded(w)
	ctx, cancel := context.WithCancel(r.Context())
	s := &stream{cancel: cancel, control: http.NewResponseController(w), feed: feed{w: w, cbor: accepts(r, typeCBORSeq)}}
	w.Header().Set("Content-Type", typeNDJSON)
	if s.feed.cbor {
		w.Header().Set("Content-Type", typeCBORSeq)
	}
	w.WriteHeader(http.StatusOK)
	if err := s.control.Flush(); err != nil { // now the client knows that it is open
		s.cancel()
	}
	return ctx, s, true
}

func (k *socket) close(s *stream, kind string) {
	s.cancel()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	k.streams.leave(kind)
}

// write sends one document and sees it out of the door. After an error the stream is at its end.
func (s *stream) write(doc []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errEnded
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTime))
	err := s.feed.write(doc)
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil {
		s.cancel()
		return fmt.Errorf("write to stream: %w", err)
	}
	return nil
}
