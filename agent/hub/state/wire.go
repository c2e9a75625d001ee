package state

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// Headers of the server's protocol that the client library has no names for.
const (
	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
	headerExpect      = "Nats-Expected-Last-Subject-Sequence"
	headerOperation   = "KV-Operation"
	headerSequence    = "Nats-Sequence"
	headerTime        = "Nats-Time-Stamp"
)

// Error codes of the server that mean something to a committer.
const (
	codeWrongSequence = 10071 // a compare-and-set lost
	codeWrongConstant = 10164 // one key twice in a batch, or a key in flight elsewhere
	codeBatchRepeated = 10201 // a message id of this batch is stored already, so all of it is
)

// serverError is a refusal by the server.
type serverError struct {
	Code int    `json:"err_code"`
	Text string `json:"description"`
}

func (e *serverError) Error() string { return fmt.Sprintf("state server: %s (%d)", e.Text, e.Code) }

func hasCode(err error, codes ...int) bool {
	refused, ok := errors.AsType[*serverError](err)
	if !ok {
		return false
	}
	for _, code := range codes {
		if refused.Code == code {
			return true
		}
	}
	return false
}

// wire publishes to streams and reads the answers.
type wire struct {
	conn *nats.Conn
	boot string        // makes message and batch ids of this process unique
	next atomic.Uint64 // last id given
}

func newWire(conn *nats.Conn) *wire {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return &wire{conn: conn, boot: hex.EncodeToString(b[:])}
}

// id is unique among all processes.
func (w *wire) id() string { return w.boot + "." + strconv.FormatUint(w.next.Add(1), 36) }

type pubAck struct {
	Error *serverError `json:"error"`
	Seq   uint64       `json:"seq"`
	Count int          `json:"count"`
}

// single publishes one message and returns its sequence, the first one if it was stored before.
func (w *wire) single(ctx context.Context, m *nats.Msg) (uint64, error) {
	ack, err := w.repeat(ctx, func(ctx context.Context) (*nats.Msg, error) { return w.conn.RequestMsgWithContext(ctx, m) })
	return ack.Seq, err
}

// batch stores all messages or none and returns the sequence of the last; the others precede it without a gap.
// Sequence 0 without an error means that an earlier attempt, whose answer was lost, has stored them.
func (w *wire) batch(ctx context.Context, messages []*nats.Msg) (uint64, error) {
	attempt := 0
	ack, err := w.repeat(ctx, func(ctx context.Context) (*nats.Msg, error) {
		attempt++
		id := w.id()
		last := len(messages) - 1
		for i, m := range messages {
			m.Header[headerBatchID] = []string{id}
			m.Header[headerBatchSeq] = []string{strconv.Itoa(i + 1)}
			if i == last {
				m.Header[headerBatchCommit] = []string{"1"}
				return w.conn.RequestMsgWithContext(ctx, m)
			}
			if err := w.conn.PublishMsg(m); err != nil {
				return nil, err
			}
		}
		return nil, errors.New("empty batch")
	})
	if attempt > 1 && hasCode(err, codeBatchRepeated) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if ack.Count != len(messages) {
		return 0, fmt.Errorf("state server: stored %d of a batch of %d", ack.Count, len(messages))
	}
	return ack.Seq, nil
}

// plain takes the batch headers off again, for a message that is sent on its own after all.
func plain(m *nats.Msg) *nats.Msg {
	delete(m.Header, headerBatchID)
	delete(m.Header, headerBatchSeq)
	delete(m.Header, headerBatchCommit)
	return m
}

// repeat sends until there is an answer. The message ids make a repetition harmless.
func (w *wire) repeat(ctx context.Context, send func(context.Context) (*nats.Msg, error)) (pubAck, error) {
	var err error
	for range ackAttempts {
		var reply *nats.Msg
		reply, err = w.once(ctx, send)
		if err == nil {
			return parseAck(reply.Data)
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrTimeout) {
			return pubAck{}, fmt.Errorf("publish: %w", err)
		}
	}
	return pubAck{}, fmt.Errorf("publish: no answer in %d attempts: %w", ackAttempts, err)
}

func (w *wire) once(ctx context.Context, send func(context.Context) (*nats.Msg, error)) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	return send(ctx)
}

func parseAck(data []byte) (pubAck, error) {
	var ack pubAck
	if err := json.Unmarshal(data, &ack); err != nil {
		return pubAck{}, fmt.Errorf("read publish answer: %w", err)
	}
	if ack.Error != nil {
		return pubAck{}, ack.Error
	}
	if ack.Seq == 0 {
		return pubAck{}, errors.New("read publish answer: no sequence")
	}
	return ack, nil
}
