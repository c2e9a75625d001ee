package mqtt

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Why a direct method has no answer.
var (
	ErrNotSent  = errors.New("the connection takes nothing any more") // the client's next connection may
	ErrGone     = errors.New("the client went away before it answered")
	ErrNoAnswer = errors.New("the client did not answer in time")
	ErrNoCall   = errors.New("answer to no call") // late, doubled, or somebody else's
)

// Calls are the direct methods that clients were asked and have not answered. The zero value is ready; it is safe for concurrent use.
type Calls struct {
	mu      sync.Mutex
	waiting map[string]call // by request id
}

type call struct {
	target iothub.ID
	answer chan iothub.MethodResult // capacity 1: the first answer counts
}

// Ask sends a direct method to the target's connection at the QoS it subscribed with and waits for the answer, at most
// req.ResponseTimeout (zero: [iothub.DefaultResponseTimeout]). The error is [ErrNotSent], [ErrGone], [ErrNoAnswer] or ctx's.
func (t *Calls) Ask(ctx context.Context, conn *Conn, target iothub.ID, req iothub.MethodRequest, qos byte) (iothub.MethodResult, error) {
	rid, this := t.open(target)
	defer t.close(rid)
	payload := req.Payload
	if len(payload) == 0 { // the Node SDK answers 400 by itself to an empty body
		payload = json.RawMessage("null")
	}
	d := iothub.Delivery{Kind: iothub.MethodCall, Name: req.Name, RequestID: rid}
	if err := conn.Send(d.Topic(), payload, qos, nil); err != nil {
		return iothub.MethodResult{}, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	wait := req.ResponseTimeout
	if wait == 0 {
		wait = iothub.DefaultResponseTimeout
	}
	limit, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	select {
	case result := <-this.answer:
		return result, nil
	case <-conn.Done():
	case <-limit.Done():
	}
	select { // several things may have happened at once: an answer counts most
	case result := <-this.answer:
		return result, nil
	default:
	}
	switch {
	case ctx.Err() != nil:
		return iothub.MethodResult{}, ctx.Err()
	case limit.Err() != nil:
		return iothub.MethodResult{}, ErrNoAnswer
	}
	return iothub.MethodResult{}, ErrGone
}

// Answered takes what a client published as an answer. Only the identity that was asked can give it, once; the error says why an
// answer is of no use.
func (t *Calls) Answered(from iothub.ID, pub iothub.Publish, payload []byte) error {
	t.mu.Lock()
	this, known := t.waiting[strings.ToLower(pub.RequestID)]
	t.mu.Unlock()
	if !known || this.target != from {
		return ErrNoCall
	}
	if len(payload) == 0 {
		payload = []byte("null")
	}
	if len(payload) > iothub.MaxMethodPayload || !json.Valid(payload) {
		return fmt.Errorf("answer of %d bytes is no JSON or longer than %d", len(payload), iothub.MaxMethodPayload)
	}
	select {
	case this.answer <- iothub.MethodResult{Status: pub.Status, Payload: payload}:
		return nil
	default:
		return ErrNoCall
	}
}

// open makes a call with an id that cannot be guessed.
func (t *Calls) open(target iothub.ID) (string, call) {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	rid := hex.EncodeToString(raw[:])
	this := call{target: target, answer: make(chan iothub.MethodResult, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting == nil {
		t.waiting = map[string]call{}
	}
	t.waiting[rid] = this
	return rid, this
}

func (t *Calls) close(rid string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, rid)
}
