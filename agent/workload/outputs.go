package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/store"
)

// maxBatch bounds the body of a request that carries many messages.
const maxBatch = 4 * iothub.MaxMessage

// headerDurability of a 204 says what the message was given: "strict", "relaxed(T)", or "none" when no route takes it. Of several
// messages it is the least that one was given.
const headerDurability = "Sandpiper-Durability"

// postOutput sends one message, or one per line.
func (k *socket) postOutput(w http.ResponseWriter, r *http.Request) {
	bag, err := iothub.ParseBag(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, "%v", err)
		return
	}
	bag = bag.Without(iothub.PropOutput, iothub.PropSourceDevice, iothub.PropSourceModule)
	output := r.PathValue("output")
	if contentType(r) == typeNDJSON {
		k.withBody(w, r, maxBatch, func(body []byte) {
			k.publishLines(w, r, output, typed(bag, typeJSON, "utf-8"), body)
		})
		return
	}
	bag = typedBy(bag, r)
	k.withBody(w, r, iothub.MaxMessage, func(body []byte) {
		given, err := k.cfg.Broker.Publish(r.Context(), k.caller.ID, output, bag, body)
		if err != nil {
			status, text := publishFault(err)
			fail(w, status, "%s", text)
			return
		}
		w.Header().Set(headerDurability, given.String())
		w.WriteHeader(http.StatusNoContent)
	})
}

// publishLines sends every line as a message. What is not JSON is refused before anything is sent.
func (k *socket) publishLines(w http.ResponseWriter, r *http.Request, output string, bag iothub.Bag, body []byte) {
	lines := bytes.FieldsFunc(body, func(c rune) bool { return c == '\n' || c == '\r' })
	for i, line := range lines {
		if !json.Valid(line) {
			fail(w, http.StatusBadRequest, "line %d is not JSON; nothing was sent", i+1)
			return
		}
	}
	var least route.Promise
	for i, line := range lines {
		given, err := k.cfg.Broker.Publish(r.Context(), k.caller.ID, output, bag, bytes.Clone(line))
		if err != nil {
			status, text := publishFault(err)
			answer(w, status, map[string]any{"message": text, "stored": i})
			return
		}
		if i == 0 || given.Weaker(least) {
			least = given
		}
	}
	w.Header().Set(headerDurability, least.String())
	w.WriteHeader(http.StatusNoContent)
}

// typed states content type and encoding where the bag does not.
func typed(bag iothub.Bag, kind, encoding string) iothub.Bag {
	if _, stated := bag.Get(iothub.PropContentType); stated || kind == "" {
		return bag
	}
	bag = bag.Set(iothub.PropContentType, kind)
	if _, stated := bag.Get(iothub.PropContentEncoding); stated || encoding == "" {
		return bag
	}
	return bag.Set(iothub.PropContentEncoding, encoding)
}

// typedBy takes content type and encoding from the request's header. JSON is UTF-8 unless it says otherwise; routes that look into
// bodies need both.
func typedBy(bag iothub.Bag, r *http.Request) iothub.Bag {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind == typeForm {
		return bag
	}
	encoding := strings.ToLower(params["charset"])
	if kind == typeJSON && encoding == "" {
		encoding = "utf-8"
	}
	return typed(bag, kind, encoding)
}

// publishFault is how a message that was not stored is answered: 413 when it can never be, 507 when the disk is full.
func publishFault(err error) (status int, text string) {
	var hub *iothub.Error
	switch {
	case errors.As(err, &hub) && hub.Status() >= 400 && hub.Status() < 600:
		return hub.Status(), hub.Message
	case errors.Is(err, message.ErrTooLarge), errors.Is(err, store.ErrTooLarge):
		return http.StatusRequestEntityTooLarge, err.Error()
	case errors.Is(err, context.Canceled), errors.Is(err, store.ErrClosed):
		return http.StatusServiceUnavailable, "message was not stored: the agent ends; send it again when its successor is here"
	case errors.Is(err, store.ErrFull):
		return http.StatusInsufficientStorage, "message was not stored: " + err.Error()
	}
	return http.StatusServiceUnavailable, "message was not stored: " + err.Error()
}
