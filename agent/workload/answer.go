package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Content types of this API.
const (
	typeJSON    = "application/json"
	typeNDJSON  = "application/x-ndjson"
	typeCBOR    = "application/cbor"
	typeCBORSeq = "application/cbor-seq"
	typeForm    = "application/x-www-form-urlencoded" // what curl says when it is told nothing
)

// fail answers with an error in the one shape that all SDKs know.
func fail(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, map[string]string{"message": fmt.Sprintf(format, args...)})
}

// failHub answers with what a hub or broker said no with, or with 500.
func failHub(w http.ResponseWriter, err error) {
	var hub *iothub.Error
	if errors.As(err, &hub) && hub.Status() >= 400 && hub.Status() < 600 {
		answer(w, hub.Status(), map[string]any{"message": hub.Message, "errorCode": hub.Code})
		return
	}
	fail(w, http.StatusInternalServerError, "%v", err)
}

// answer sends a JSON document.
func answer(w http.ResponseWriter, status int, doc any) {
	raw, err := json.Marshal(doc)
	if err != nil { // cannot happen with the documents made here
		status, raw = http.StatusInternalServerError, []byte(`{"message":"the answer could not be written as JSON"}`)
	}
	send(w, status, typeJSON, raw)
}

// answerIn sends a JSON document, as CBOR to a client that prefers that.
func answerIn(w http.ResponseWriter, r *http.Request, status int, doc []byte) {
	if !accepts(r, typeCBOR) {
		send(w, status, typeJSON, doc)
		return
	}
	raw, err := toCBOR(doc)
	if err != nil {
		fail(w, http.StatusInternalServerError, "write as CBOR: %v", err)
		return
	}
	send(w, status, typeCBOR, raw)
}

func send(w http.ResponseWriter, status int, kind string, body []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away is not told
}

func accepts(r *http.Request, kind string) bool {
	for _, part := range strings.Split(r.Header.Get("Accept"), ",") {
		if media, _, err := mime.ParseMediaType(part); err == nil && media == kind {
			return true
		}
	}
	return false
}

// contentType is the media type of a request without its parameters, "" when none is stated.
func contentType(r *http.Request) string {
	stated := r.Header.Get("Content-Type")
	if stated == typeJSON || stated == typeCBOR {
		return stated
	}
	media, _, err := mime.ParseMediaType(stated)
	if err != nil {
		return ""
	}
	return media
}

// smallBody is a body that is taken at its announced length, in bytes.
const smallBody = 4096

// withBody reads at most limit bytes of the request's body and calls act with them. The number of large bodies that are held at a time is
// bounded, and a body that says it is too long is refused before it is read.
func (k *socket) withBody(w http.ResponseWriter, r *http.Request, limit int64, act func(body []byte)) {
	if body, put, ok := k.body(w, r, limit); ok {
		defer put()
		act(body)
	}
}

// body reads a body as withBody does. With false the request was answered; else the caller owes a put.
func (k *socket) body(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, put func(), ok bool) {
	n := r.ContentLength
	if n > limit {
		k.bound(k.cfg.Oversize)
		fail(w, http.StatusRequestEntityTooLarge, "body of %d bytes, at most %d are taken", n, limit)
		return nil, nil, false
	}
	if n > 0 && n <= smallBody { // what most requests have: no more of them than connections, and one that stops holds up no other
		body = make([]byte, n)
		if got, err := io.ReadFull(r.Body, body); err != nil {
			k.cut(w, int64(got), err)
			return nil, nil, false
		}
		return body, nothingOwed, true
	}
	select {
	case k.bodies <- struct{}{}:
	default: // asked last, as a context makes its channel when it is asked for it
		select {
		case k.bodies <- struct{}{}:
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(k.patience())) // it was not this body that took the time
		case <-r.Context().Done():
			fail(w, http.StatusServiceUnavailable, "the agent is stopping")
			return nil, nil, false
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit)) // grows with what comes, not with what is announced
	if err == nil {
		return body, k.putBody, true
	}
	k.putBody()
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		k.bound(k.cfg.Oversize)
		fail(w, http.StatusRequestEntityTooLarge, "body longer than %d bytes", limit)
		return nil, nil, false
	}
	k.cut(w, int64(len(body)), err)
	return nil, nil, false
}

func (k *socket) putBody() { <-k.bodies }

func nothingOwed() {}

// cut answers a request whose body stopped, and ends its connection.
func (k *socket) cut(w http.ResponseWriter, got int64, err error) {
	w.Header().Set("Connection", "close")
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		fail(w, http.StatusBadRequest, "read body: %v", err)
		return
	}
	k.bound(k.cfg.Stalled)
	fail(w, http.StatusRequestTimeout, "body: %d bytes came and the rest did not, in %v; send it whole", got, k.patience())
}

// withDocument is withBody for a JSON document; CBOR is turned into JSON first.
func (k *socket) withDocument(w http.ResponseWriter, r *http.Request, limit int64, act func(doc []byte)) {
	if doc, put, ok := k.document(w, r, limit); ok {
		defer put()
		act(doc)
	}
}

// document is body for a JSON document.
func (k *socket) document(w http.ResponseWriter, r *http.Request, limit int64) (doc []byte, put func(), ok bool) {
	doc, put, ok = k.body(w, r, limit)
	if ok && contentType(r) == typeCBOR {
		read, err := toJSON(doc)
		if doc = read; err != nil {
			put()
			fail(w, http.StatusBadRequest, "body is not CBOR that can be written as JSON: %v", err)
			return nil, nil, false
		}
	}
	return doc, put, ok
}

// unbounded lifts the time limits of a request that may last: a stream, or a wait for somebody else.
func unbounded(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
}
