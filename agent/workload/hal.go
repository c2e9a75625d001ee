package workload

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// maxHalBody bounds a request about pins, in bytes: 64 operations in hexadecimal.
const maxHalBody = 256 << 10

// halRoutes is the API of pins, buses and sensors. A device without a [hal] section grants nothing.
func (k *socket) halRoutes(mux *http.ServeMux) {
	if k.cfg.Hal == nil {
		return
	}
	handle := func(pattern string, act http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			k.turn(r.Context())
			act(w, r)
		})
	}
	handle("GET /v1/hal", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			k.upgradeHal(w, r)
			return
		}
		k.answerHal(w, r, k.cfg.Hal.List(k.caller.ID.Module))
	})
	handle("GET /v1/hal/{name}", k.readHal)
	handle("PUT /v1/hal/{name}", k.writeHal)
	handle("POST /v1/hal/{name}/transfer", k.transferHal)
	handle("GET /v1/hal/{name}/events", k.eventsHal)
	handle("POST /v1/hal/batch", k.batchHal)
	handle("POST /v1/hal/leases", k.acquireHal)
	handle("PUT /v1/hal/leases/{id}", k.renewHal)
	handle("DELETE /v1/hal/leases/{id}", k.releaseHal)
}

// failHal answers with an error of the hardware room.
func failHal(w http.ResponseWriter, err error) {
	b := refusalOf(err)
	answer(w, b.Code.Status(), map[string]any{"error": b})
}

// refusal is an error as a module reads it.
type refusal struct {
	Code   hal.Code `json:"code" cbor:"code"`
	Name   string   `json:"name,omitempty" cbor:"name,omitempty"`
	Detail string   `json:"detail,omitempty" cbor:"detail,omitempty"`
	Retry  int64    `json:"retry_after_ms,omitempty" cbor:"retry_after_ms,omitempty"`
}

func refusalOf(err error) refusal {
	b := refusal{Code: hal.CodeOf(err), Detail: err.Error()}
	var e *hal.Error
	if errors.As(err, &e) {
		b.Name, b.Detail, b.Retry = e.Name, e.Detail, e.Retry.Milliseconds()
		if b.Detail == "" && e.Err != nil {
			b.Detail = e.Err.Error()
		}
	}
	return b
}

func (k *socket) answerHal(w http.ResponseWriter, r *http.Request, doc any) {
	raw, err := json.Marshal(doc)
	if err != nil {
		failHal(w, err)
		return
	}
	answerIn(w, r, http.StatusOK, raw)
}

// halDocument reads the body of a request into doc.
func (k *socket) halDocument(w http.ResponseWriter, r *http.Request, doc any, act func()) {
	k.withDocument(w, r, maxHalBody, func(raw []byte) {
		if err := json.Unmarshal(raw, doc); err != nil {
			failHal(w, hal.Errorf(hal.Invalid, "body: %v", err))
			return
		}
		act()
	})
}

func (k *socket) readHal(w http.ResponseWriter, r *http.Request) {
	var fresh hal.Duration
	if text := r.URL.Query().Get("max_age"); text != "" {
		if err := fresh.UnmarshalText([]byte(text)); err != nil {
			failHal(w, hal.Errorf(hal.Invalid, "max_age: %v", err))
			return
		}
	}
	v, err := k.cfg.Hal.Read(r.Context(), k.caller.ID.Module, r.PathValue("name"), hal.ClassRead, time.Duration(fresh))
	if err != nil {
		failHal(w, err)
		return
	}
	k.answerHal(w, r, struct {
		Value   float64     `json:"value"`
		Unit    string      `json:"unit,omitempty"`
		Time    time.Time   `json:"time"`
		Mono    int64       `json:"mono,omitempty"`
		Quality hal.Quality `json:"quality"`
	}{v.Num, v.Unit, v.Time.UTC(), v.Mono, v.Quality})
}

func (k *socket) writeHal(w http.ResponseWriter, r *http.Request) {
	raw, put, ok := k.document(w, r, maxHalBody)
	if !ok {
		return
	}
	defer put()
	req, err := readHalWrite(raw)
	switch {
	case err != nil:
		err = hal.Errorf(hal.Invalid, "body: %v", err)
	case !req.given:
		err = hal.Errorf(hal.Invalid, `body: want {"value": number}`)
	default:
		req.fence, err = k.cfg.Hal.Write(r.Context(), k.caller.ID.Module, r.PathValue("name"), req.value, req.pulse, req.fence)
	}
	if err != nil {
		failHal(w, err)
		return
	}
	w.Header()["Hal-Fence"] = k.fences.text(req.fence) // as Set would write it
	w.WriteHeader(http.StatusNoContent)
}

// hexBytes are bytes as hexadecimal text.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// halOp is one operation as a module writes it.
type halOp struct {
	W    hexBytes     `json:"w,omitempty"`
	R    int          `json:"r,omitempty"`
	Fn   hal.Function `json:"fn,omitempty"`
	Addr uint16       `json:"addr,omitempty"`
	N    uint16       `json:"n,omitempty"`
	ID   uint32       `json:"id,omitempty"`
	Data hexBytes     `json:"data,omitempty"`
	End  string       `json:"until,omitempty"` // serial: read up to and with this byte
}

func (o halOp) op() hal.Op {
	op := hal.Op{Write: o.W, Read: o.R, Fn: o.Fn, Addr: o.Addr, N: o.N, ID: o.ID}
	if o.Data != nil {
		op.Write = o.Data
	}
	if len(o.End) == 1 {
		op.Until = int(o.End[0])
	}
	return op
}

// halResult is what one operation read.
type halResult struct {
	R hexBytes `json:"r,omitempty"`
}

func halResults(done []hal.Op) []halResult {
	list := make([]halResult, len(done))
	for i, o := range done {
		list[i].R = o.Data
	}
	return list
}

func (k *socket) transferHal(w http.ResponseWriter, r *http.Request) {
	var req struct {
		halOp
		Ops      []halOp      `json:"ops"`
		Deadline hal.Duration `json:"deadline"`
	}
	k.halDocument(w, r, &req, func() {
		if req.Ops == nil {
			req.Ops = []halOp{req.halOp}
		}
		ops := make([]hal.Op, len(req.Ops))
		for i, o := range req.Ops {
			ops[i] = o.op()
		}
		done, err := k.cfg.Hal.Transfer(r.Context(), k.caller.ID.Module, r.PathValue("name"), ops, time.Duration(req.Deadline))
		if err != nil {
			failHal(w, err)
			return
		}
		k.answerHal(w, r, map[string]any{"ops": halResults(done)})
	})
}

func (k *socket) acquireHal(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Names []string     `json:"names"`
		TTL   hal.Duration `json:"ttl"`
	}
	k.halDocument(w, r, &req, func() {
		lease, err := k.cfg.Hal.Acquire(k.caller.ID.Module, req.Names, time.Duration(req.TTL))
		if err != nil {
			failHal(w, err)
			return
		}
		k.answerHal(w, r, lease)
	})
}

func (k *socket) renewHal(w http.ResponseWriter, r *http.Request) {
	until, err := k.cfg.Hal.Renew(k.caller.ID.Module, r.PathValue("id"))
	if err != nil {
		failHal(w, err)
		return
	}
	k.answerHal(w, r, map[string]time.Time{"expires": until})
}

func (k *socket) releaseHal(w http.ResponseWriter, r *http.Request) {
	if err := k.cfg.Hal.Release(k.caller.ID.Module, r.PathValue("id")); err != nil {
		failHal(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
