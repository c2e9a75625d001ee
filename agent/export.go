package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/message"
	"github.com/sandpiper-edge/sandpiper/store"
)

const (
	// storeNameKey is the document that names this store: sequence numbers mean nothing in another one.
	storeNameKey = "agent/store-name"
	// toHub begins the name of every lane whose messages go to the hub.
	toHub = "upstream/"
	// lookBatch is how many messages a look into a lane takes at a time.
	lookBatch = 256
)

// queueFuncs are `sandpiper queue`.
func (a *Agent) queueFuncs() control.QueueFuncs {
	return control.QueueFuncs{Peek: a.peekQueue, Purge: a.purgeQueue, Export: a.exportQueue, Receipt: a.takeReceipt}
}

func (a *Agent) sinks() []string {
	var names []string
	for _, q := range a.store.Queue().Stats() {
		if !slices.Contains(names, q.Sink) {
			names = append(names, q.Sink)
		}
	}
	return names
}

func (a *Agent) knownSink(sink string) error {
	if names := a.sinks(); !slices.Contains(names, sink) {
		return fmt.Errorf("queue %q is not there; there is: %s: %w", sink, cmp.Or(strings.Join(names, ", "), "none"), control.ErrNotFound)
	}
	return nil
}

// peekQueue shows the first messages of a lane; nothing is taken.
func (a *Agent) peekQueue(_ context.Context, sink string, n int) ([]control.QueueItem, error) {
	if err := a.knownSink(sink); err != nil {
		return nil, err
	}
	list := []control.QueueItem{}
	for after := (store.Cursor{}); len(list) < n; {
		items, next, err := a.store.Queue().Peek(sink, after, n-len(list), 1<<20)
		if err != nil {
			return nil, err
		}
		if len(items) == 0 {
			break
		}
		after = next
		for _, it := range items {
			list = append(list, shown(it))
		}
	}
	return list, nil
}

// shown is a stored message for an operator's eyes.
func shown(it store.Item) control.QueueItem {
	out := control.QueueItem{Seq: it.Seq, Priority: int(it.Priority), Stored: it.Stored}
	m, err := message.Decode(it.Body)
	if err != nil {
		out.Fault, out.Bytes = err.Error(), len(it.Body)
		return out
	}
	out.From, out.Output, out.Bytes, out.Body = m.Source.String(), m.Output, len(m.Body), m.Body
	for _, p := range m.Bag {
		if out.Properties == nil {
			out.Properties = map[string]string{}
		}
		out.Properties[p.Key] = p.Value
	}
	return out
}

func (a *Agent) purgeQueue(ctx context.Context, sink string) (control.Purged, error) {
	if err := a.knownSink(sink); err != nil {
		return control.Purged{}, err
	}
	n, err := a.store.Queue().Purge(ctx, sink)
	if err == nil {
		a.log.Warn("queue purged by the operator", "queue", sink, "messages", n)
	}
	return control.Purged{Messages: n}, err
}

// storeName names this store; it is made once.
func (a *Agent) storeName(ctx context.Context) (string, error) {
	raw, err := a.store.Docs().Get(storeNameKey)
	if err != nil || len(raw) > 0 {
		return string(raw), err
	}
	name := randomName()
	return name, a.store.Docs().Put(ctx, storeNameKey, []byte(name))
}

func randomName() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// exportQueue writes what waits for the hub, oldest first, signed with the device's key. Nothing is acknowledged by that.
func (a *Agent) exportQueue(ctx context.Context, sinks []string, w io.Writer) error {
	if a.dev.hub == "" {
		return fmt.Errorf("this device belongs to no hub, so nobody could take an export: %w", control.ErrRefused)
	}
	for _, sink := range sinks {
		if err := a.knownSink(sink); err != nil {
			return err
		}
		if !strings.HasPrefix(sink, toHub) {
			return fmt.Errorf("queue %q does not go to the hub: %w", sink, control.ErrRefused)
		}
	}
	if len(sinks) == 0 {
		sinks = slices.DeleteFunc(a.sinks(), func(s string) bool { return !strings.HasPrefix(s, toHub) })
	}
	name, err := a.storeName(ctx)
	if err != nil {
		return err
	}
	head := message.ExportHeader{ID: randomName(), Device: a.dev.id, Hub: a.dev.hub, Store: name, Created: time.Now()}
	out, err := message.NewExportWriter(w, head)
	if err != nil {
		return err
	}
	for _, sink := range sinks {
		if err := a.exportLane(ctx, sink, out); err != nil {
			return fmt.Errorf("export %s: %w", sink, err)
		}
	}
	n, err := out.Close(a.exportSigner())
	if err == nil {
		a.log.Info("queue exported", "messages", n, "export", head.ID)
	}
	return err
}

func (a *Agent) exportLane(ctx context.Context, sink string, out *message.ExportWriter) error {
	for after := (store.Cursor{}); ctx.Err() == nil; {
		items, next, err := a.store.Queue().Peek(sink, after, lookBatch, 1<<20)
		if err != nil || len(items) == 0 {
			return err
		}
		after = next
		for _, it := range items {
			if err := out.Add(message.Exported{Sink: sink, Priority: it.Priority, Seq: it.Seq, Body: it.Body}); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func (a *Agent) exportSigner() message.Signer {
	if a.dev.pair != nil {
		return message.SignWithCertificate(*a.dev.pair)
	}
	return message.SignWithKey(a.dev.key)
}

// receiptVerifier accepts the hub: by the key that only the two know, or by the certificate that it shows on the network as well.
func (a *Agent) receiptVerifier() (message.Verifier, error) {
	if a.dev.pair == nil {
		return message.VerifyWithKeys(a.dev.key), nil
	}
	roots, err := rootsFrom(a.cfg.Upstream.TrustedCA)
	return message.VerifyWithCertificate(func(leaf *x509.Certificate) error {
		_, err := leaf.Verify(x509.VerifyOptions{DNSName: a.dev.hub, Roots: roots})
		return err
	}), err
}

// takeReceipt acknowledges what the hub took from an export. A receipt that comes twice finds nothing left to acknowledge.
func (a *Agent) takeReceipt(ctx context.Context, raw []byte) (control.Purged, error) {
	r, err := message.ParseReceipt(raw)
	if err != nil {
		return control.Purged{}, err
	}
	if r.Device != a.dev.id || r.Hub != a.dev.hub || a.dev.hub == "" {
		return control.Purged{}, fmt.Errorf("the receipt is for %.200s at %.200s, this is %s at %s: %w", r.Device, r.Hub, a.dev.id, cmp.Or(a.dev.hub, "no hub"), control.ErrRefused)
	}
	verify, err := a.receiptVerifier()
	if err == nil {
		err = r.Verify(verify)
	}
	if err != nil {
		return control.Purged{}, fmt.Errorf("receipt of export %.64s: %w", r.Export, err)
	}
	name, err := a.storeName(ctx)
	if err != nil {
		return control.Purged{}, err
	}
	if r.Store != name {
		return control.Purged{}, fmt.Errorf("the receipt is for an export of another store of this device (%.64s); its messages are gone from here: %w", r.Store, control.ErrRefused)
	}
	total := 0
	for _, lane := range r.Lanes {
		n, err := a.ackRange(ctx, lane)
		total += n
		if err != nil {
			return control.Purged{Messages: total}, fmt.Errorf("acknowledge %.64s: %w", lane.Sink, err)
		}
	}
	a.log.Info("receipt of an export taken", "export", r.Export, "messages", total)
	return control.Purged{Messages: total}, nil
}

// ackRange acknowledges the messages of a lane whose numbers a receipt names.
func (a *Agent) ackRange(ctx context.Context, lane message.ReceiptLane) (total int, err error) {
	queue := a.store.Queue()
	for {
		acked := 0
		for after := (store.Cursor{}); ctx.Err() == nil; {
			items, next, err := queue.Peek(lane.Sink, after, lookBatch, 1<<20)
			if err != nil {
				return total, err
			}
			if len(items) == 0 {
				break
			}
			after = next
			got := items[:0]
			for _, it := range items {
				if it.Priority == lane.Priority && it.Seq >= lane.First && it.Seq <= lane.Last {
					got = append(got, it)
				}
			}
			if err := queue.Ack(lane.Sink, got...); err != nil {
				return total, err
			}
			acked += len(got)
		}
		total += acked
		if acked == 0 || ctx.Err() != nil { // what was handed out at once is bounded: look again until nothing is left
			return total, ctx.Err()
		}
	}
}
