package workload

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// maxCalls bounds the calls of one module that wait for its answer.
const maxCalls = 64

// Call is a direct method called on a module, as the stream of methods shows it.
type Call struct {
	ID      string          `json:"rid"`
	Name    string          `json:"name"`
	Payload json.RawMessage `json:"payload"` // null when the caller gave none
}

// calls are direct methods that wait for the module's answer.
type calls struct {
	mu      sync.Mutex
	waiting map[string]chan iothub.MethodResult // by request id; capacity 1
}

func (c *calls) begin(id string) (<-chan iothub.MethodResult, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) >= maxCalls {
		return nil, false
	}
	if c.waiting == nil {
		c.waiting = map[string]chan iothub.MethodResult{}
	}
	answered := make(chan iothub.MethodResult, 1)
	c.waiting[id] = answered
	return answered, true
}

func (c *calls) end(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *calls) answer(id string, result iothub.MethodResult) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	answered, ok := c.waiting[id]
	if !ok {
		return false
	}
	delete(c.waiting, id)
	answered <- result
	return true
}

// getMethods streams the direct methods that are called on the module, as long as it lasts.
func (k *socket) getMethods(w http.ResponseWriter, r *http.Request) {
	ctx, s, ok := k.open(w, r, "methods")
	if !ok {
		return
	}
	defer k.close(s, "methods")
	stop := k.cfg.Broker.HandleMethod(k.caller.ID, func(calling context.Context, req iothub.MethodRequest) iothub.MethodResult {
		return k.handle(calling, ctx, s, req)
	})
	defer stop()
	<-ctx.Done()
}

// handle shows one call to the module and waits for its answer. When calling ends the caller has given up, and the result is for
// nobody; when streaming ends the module has gone.
func (k *socket) handle(calling, streaming context.Context, s *stream, req iothub.MethodRequest) iothub.MethodResult {
	id := k.names.next()
	doc, err := json.Marshal(Call{ID: id, Name: req.Name, Payload: req.Payload})
	if err != nil {
		return noAnswer(http.StatusBadRequest, "payload is not JSON")
	}
	answered, ok := k.methods.begin(id)
	if !ok {
		return noAnswer(http.StatusTooManyRequests, "too many calls wait for this module's answer")
	}
	defer k.methods.end(id)
	if s.write(doc) != nil {
		return noAnswer(http.StatusServiceUnavailable, "module closed its stream of methods")
	}
	select {
	case result := <-answered:
		return result
	case <-calling.Done():
		return noAnswer(http.StatusGatewayTimeout, "module did not answer in time")
	case <-streaming.Done():
		return noAnswer(http.StatusServiceUnavailable, "module closed its stream of methods")
	}
}

func noAnswer(status int, text string) iothub.MethodResult {
	payload, err := json.Marshal(map[string]string{"message": text})
	if err != nil {
		payload = nil
	}
	return iothub.MethodResult{Status: status, Payload: payload}
}

// postMethod takes the module's answer to a call.
func (k *socket) postMethod(w http.ResponseWriter, r *http.Request) {
	status := http.StatusOK
	if text := r.URL.Query().Get("status"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			fail(w, http.StatusBadRequest, "status is %.32q, want a whole number", text)
			return
		}
		status = int(n)
	}
	k.withDocument(w, r, iothub.MaxMethodPayload, func(payload []byte) {
		if len(payload) == 0 {
			payload = []byte("null")
		}
		if !json.Valid(payload) {
			fail(w, http.StatusBadRequest, "payload is not JSON")
			return
		}
		if id := r.PathValue("rid"); !k.methods.answer(id, iothub.MethodResult{Status: status, Payload: payload}) {
			fail(w, http.StatusNotFound, "no call %.64q waits: its time is over, or it was answered before", id)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// callMethod calls a direct method of a module, by default of this device.
func (k *socket) callMethod(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	device, module := query.Get("device"), query.Get("module")
	if device == "" && module == "" {
		fail(w, http.StatusBadRequest, "module is missing: whose method shall be called?")
		return
	}
	if device == "" {
		device = k.caller.ID.Device
	}
	target, err := iothub.NewID(device, module)
	if err != nil {
		fail(w, http.StatusBadRequest, "%v", err)
		return
	}
	req, ok := k.methodRequest(w, r)
	if !ok {
		return
	}
	unbounded(w)
	result, err := k.cfg.Broker.Call(r.Context(), target, req)
	if err != nil {
		failHub(w, err)
		return
	}
	doc, err := json.Marshal(result)
	if err != nil {
		fail(w, http.StatusBadGateway, "answer of %s is not JSON: %v", target, err)
		return
	}
	answerIn(w, r, http.StatusOK, doc)
}

// methodRequest reads the body of a call, and answers if it is none.
func (k *socket) methodRequest(w http.ResponseWriter, r *http.Request) (req iothub.MethodRequest, ok bool) {
	k.withDocument(w, r, iothub.MaxMethodRequest, func(body []byte) {
		parsed, err := iothub.ParseMethodRequest(body)
		if err != nil {
			fail(w, http.StatusBadRequest, "%v", err)
			return
		}
		req, ok = parsed, true
	})
	return req, ok
}
