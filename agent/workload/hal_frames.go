package workload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// The framed form of the API, for modules that are faster than one request of HTTP at a time: after "Upgrade: sandpiper-hal/1" each
// side sends frames of four bytes of length, big endian, and one CBOR map. A request carries an id of the module's choice and comes
// back in an answer with the same id; requests of one connection are done in order, however many are on their way.
const (
	halProtocol  = "sandpiper-hal/1"
	maxHalFrame  = maxHalBody
	maxHalFrames = 8 // connections of one module
	frameIdle    = 5 * time.Minute
)

// frameRequest is one request. With Ops it is a batch on one bus; with Watch a stream of events that ends with the connection; else
// one operation: Value writes, W or R transfers, a name alone reads.
type frameRequest struct {
	ID    uint64
	Ops   []frameOp
	Batch bool   // Ops was there
	Limit uint32 // ms; its key is "deadline"
	Watch string
	From  uint64
	frameOp
}

type frameOp struct {
	Name   string
	Value  float64
	Writes bool   // Value was there
	For    uint32 // ms
	Fence  uint64
	W      []byte
	R      int
	Fn     hal.Function
	Addr   uint16
	N      uint16
	CAN    uint32
}

func (o *frameOp) step() hal.Step {
	one := hal.Step{Name: o.Name, Fence: o.Fence}
	if o.Writes {
		one.Value, one.For = &o.Value, time.Duration(o.For)*time.Millisecond
	}
	if !o.Writes && (o.W != nil || o.R != 0 || o.Fn != "") {
		one.Op = &hal.Op{Write: o.W, Read: o.R, Fn: o.Fn, Addr: o.Addr, N: o.N, ID: o.CAN}
	}
	return one
}

// frameAnswer is what a request gave: one result, those of a batch, some events, or an error.
type frameAnswer struct {
	ID     uint64        `cbor:"id"`
	Ops    []frameResult `cbor:"ops,omitempty"`
	Events []frameEvent  `cbor:"events,omitempty"`
	Error  *refusal      `cbor:"error,omitempty"`
	frameResult
}

type frameResult struct {
	Value   *float64    `cbor:"value,omitempty"`
	Mono    int64       `cbor:"mono,omitempty"`
	Quality hal.Quality `cbor:"quality,omitempty"`
	Fence   uint64      `cbor:"fence,omitempty"`
	R       []byte      `cbor:"r,omitempty"`
}

type frameEvent struct {
	Seq    uint64   `cbor:"seq"`
	Lost   uint64   `cbor:"lost"`
	Merged uint64   `cbor:"merged"`
	Edge   hal.Edge `cbor:"edge,omitempty"`
	Mono   int64    `cbor:"mono"`
	CAN    uint32   `cbor:"can,omitempty"`
	Data   []byte   `cbor:"data,omitempty"`
}

func outcome(one *hal.Step, d *hal.Result) frameResult {
	r := frameResult{Fence: d.Fence, R: d.Data}
	if one.Value == nil && one.Op == nil {
		r.Value, r.Mono, r.Quality = &d.Value.Num, d.Value.Mono, d.Value.Quality
	}
	return r
}

// frames is one upgraded connection. Answers and events are written by several goroutines, one frame at a time.
type frames struct {
	k     *socket
	conn  net.Conn
	in    *bufio.Reader
	steps []hal.Step    // room for a batch, of the one who reads
	done  []frameResult // as well

	mu    sync.Mutex // guards what follows, and writing
	buf   []byte
	timed time.Time // when the deadline of writes was set
}

// upgradeHal turns a request into a connection of frames.
func (k *socket) upgradeHal(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != halProtocol {
		failHal(w, hal.Errorf(hal.Unsupported, "upgrade to %.32q; want %s", r.Header.Get("Upgrade"), halProtocol))
		return
	}
	kind := ""
	for i := range maxHalFrames {
		if name := fmt.Sprintf("frames %d", i); k.streams.enter(name) {
			kind = name
			break
		}
	}
	if kind == "" {
		failHal(w, &hal.Error{Code: hal.TooFast, Detail: fmt.Sprintf("%d connections of frames are open; a module has as many at most", maxHalFrames)})
		return
	}
	defer k.streams.leave(kind)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		failHal(w, hal.Errorf(hal.Unsupported, "this connection cannot be upgraded: %v", err))
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(r.Context(), func() { _ = conn.Close() })
	defer stop()
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // it is there; from its reader an error would end the context, and with it the connection before its answer
	f := &frames{k: k, conn: conn, in: bufio.NewReader(io.MultiReader(bytes.NewReader(early), conn))}
	_ = conn.SetDeadline(time.Now().Add(writeTime))
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+halProtocol+"\r\n\r\n"); err != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	f.serve(r.Context())
}

// serve does requests until the connection ends or something comes that is no frame.
func (f *frames) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var room [4096]byte
	var req frameRequest
	watches, timed := 0, time.Time{}
	for {
		if now := time.Now(); watches == 0 && now.Sub(timed) > frameIdle/2 {
			timed = now
			_ = f.conn.SetReadDeadline(now.Add(frameIdle))
		}
		raw, waited, err := f.read(room[:])
		if err != nil {
			if waited && errors.Is(err, os.ErrDeadlineExceeded) {
				f.k.bound(f.k.cfg.Stalled)
				_ = f.fail(0, hal.Errorf(hal.TimedOut, "half a frame came, and the rest did not in %v; send it whole", f.k.patience()))
			}
			return // the module went, or speaks something else: there is nobody to tell
		}
		if waited {
			timed = time.Time{}
			if watches > 0 {
				_ = f.conn.SetReadDeadline(time.Time{})
			}
		}
		if err := readRequest(raw, &req); err != nil {
			_ = f.fail(0, hal.Errorf(hal.Invalid, "frame: %v", err))
			return
		}
		f.k.turn(ctx)
		if req.Watch == "" {
			err = f.do(ctx, &req)
		} else if watches++; watches > 16 {
			err = f.fail(req.ID, &hal.Error{Code: hal.TooFast, Detail: "16 watches are open on this connection"})
		} else {
			_ = f.conn.SetReadDeadline(time.Time{}) // one that only listens may be silent
			err = f.watch(ctx, &req)
		}
		if err != nil {
			return
		}
	}
}

// read reads the next frame. One that has begun has to come whole within some time; waited says that this was set for the connection.
func (f *frames) read(room []byte) (raw []byte, waited bool, err error) {
	if _, err := f.in.Peek(1); err != nil {
		return nil, false, err
	}
	whole := false
	if n := f.in.Buffered(); n >= 4 {
		head, _ := f.in.Peek(4) // it is there
		whole = uint32(n-4) >= binary.BigEndian.Uint32(head)
	}
	if !whole {
		_ = f.conn.SetReadDeadline(time.Now().Add(f.k.patience()))
	}
	raw, err = readFrame(f.in, room)
	return raw, !whole, err
}

// readFrame reads one frame into room, or into as much as it needs.
func readFrame(r io.Reader, room []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, room[:4]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(room[:4]))
	if n < 1 || n > maxHalFrame {
		return nil, fmt.Errorf("frame of %d bytes; want 1 to %d", n, maxHalFrame)
	}
	if n > len(room) {
		room = make([]byte, n)
	}
	_, err := io.ReadFull(r, room[:n])
	return room[:n], err
}

// do runs one operation or a batch and answers. Only a connection that takes no answer is an error.
func (f *frames) do(ctx context.Context, req *frameRequest) error {
	limit := time.Duration(req.Limit) * time.Millisecond
	a := frameAnswer{ID: req.ID}
	if !req.Batch {
		done, err := f.one(ctx, req.step(), limit)
		if err != nil {
			return f.fail(req.ID, err)
		}
		a.frameResult = done
		return f.send(&a)
	}
	f.steps, f.done = f.steps[:0], f.done[:0]
	for i := range req.Ops {
		f.steps = append(f.steps, req.Ops[i].step())
	}
	done, err := f.k.cfg.Hal.Batch(ctx, f.k.caller.ID.Module, f.steps, limit)
	if err != nil {
		return f.fail(req.ID, err)
	}
	for i := range done {
		f.done = append(f.done, outcome(&f.steps[i], &done[i]))
	}
	a.Ops = f.done
	return f.send(&a)
}

// one runs one operation.
func (f *frames) one(ctx context.Context, op hal.Step, limit time.Duration) (r frameResult, err error) {
	who := f.k.caller.ID.Module
	switch {
	case op.Value != nil:
		r.Fence, err = f.k.cfg.Hal.Write(ctx, who, op.Name, *op.Value, op.For, op.Fence)
	case op.Op != nil:
		var done []hal.Op
		if done, err = f.k.cfg.Hal.Transfer(ctx, who, op.Name, []hal.Op{*op.Op}, limit); err == nil {
			r.R = done[0].Data
		}
	default:
		var v hal.Value
		v, err = f.k.cfg.Hal.Read(ctx, who, op.Name, hal.ClassRead, 0)
		r.Value, r.Mono, r.Quality = &v.Num, v.Mono, v.Quality
	}
	return r, err
}

func (f *frames) fail(id uint64, err error) error {
	r := refusalOf(err)
	return f.send(&frameAnswer{ID: id, Error: &r})
}

// watch begins to send events, and says first that it did.
func (f *frames) watch(ctx context.Context, req *frameRequest) error {
	watcher, err := f.k.cfg.Hal.Watch(ctx, f.k.caller.ID.Module, req.Watch, req.From)
	if err != nil {
		return f.fail(req.ID, err)
	}
	if err := f.send(&frameAnswer{ID: req.ID}); err != nil {
		return err
	}
	go func() { // ends with the connection, or with the line
		var events [64]hal.Event
		for {
			n, err := watcher.Next(ctx, events[:])
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
					_ = f.fail(req.ID, err) // then there is no more
				}
				return
			}
			a := frameAnswer{ID: req.ID, Events: make([]frameEvent, n)}
			for i, e := range events[:n] {
				a.Events[i] = frameEvent{Seq: e.Seq, Lost: e.Lost, Merged: e.Merged, Edge: e.Edge, Mono: e.Mono, CAN: e.ID, Data: e.Data}
			}
			if f.send(&a) != nil {
				return
			}
		}
	}()
	return nil
}

// send writes one frame. A module that takes nothing for writeTime is cut off.
func (f *frames) send(a *frameAnswer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = a.append(append(f.buf[:0], 0, 0, 0, 0))
	binary.BigEndian.PutUint32(f.buf, uint32(len(f.buf)-4))
	if now := time.Now(); now.Sub(f.timed) > writeTime/2 { // not for each frame: it costs as much as a tenth of one
		f.timed = now
		_ = f.conn.SetWriteDeadline(now.Add(2 * writeTime))
	}
	_, err := f.conn.Write(f.buf)
	if err != nil {
		_ = f.conn.Close() // half a frame ends the connection
	}
	return err
}
