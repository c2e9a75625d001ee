package hub

import (
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // thumbprints of certificates are SHA-1 in the service's documents
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/hub/state"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/message"
)

const (
	// maxImport bounds an export, in bytes.
	maxImport = 16 << 30
	// maxImportStores bounds the stores remembered of one device: each new card or reset makes one.
	maxImportStores = 16
	// maxImportLanes bounds the lanes of one export.
	maxImportLanes = 4096
)

// importDoc is how far each lane of each store of a device came by exports: what is at or below was taken before.
type importDoc struct {
	V      int                          `json:"v"`
	Stores map[string]map[string]uint64 `json:"stores"` // store → sink and priority → last number
	Order  []string                     `json:"order"`  // of the stores, the latest last
}

// importQueue is POST /imports: the body is an export, the answer its receipt. The same export, or one with the same messages, may come
// again: what was taken before is not taken twice, and the receipt says the same.
func (h *Hub) importQueue(w http.ResponseWriter, r *http.Request, _ iothub.ID) (err error) {
	f, err := os.CreateTemp(h.cfg.Dir, "import-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if _, err := io.Copy(f, r.Body); err != nil {
		return err
	}
	receipt, err := h.takeExport(r.Context(), f)
	if errors.Is(err, message.ErrExport) || errors.Is(err, message.ErrSeal) {
		return h.invalid(err.Error())
	}
	if err != nil {
		return err
	}
	return reply(w, "", receipt)
}

// takeExport verifies an export as a whole before it takes anything from it.
func (h *Hub) takeExport(ctx context.Context, f io.ReadSeeker) (message.Receipt, error) {
	lanes := map[string]*message.ReceiptLane{}
	header, auth, sign, err := h.verifyExport(ctx, f, lanes)
	if err != nil {
		return message.Receipt{}, err
	}
	device := iothub.ID{Device: header.Device}
	h.imports.Lock() // one at a time in this process; another hub of the cluster loses the race below and starts over
	defer h.imports.Unlock()
	err = retry(ctx, func() error {
		known, err := load[importDoc](ctx, h.docs, device, state.KindImports)
		if err != nil {
			return err
		}
		doc := known.doc
		if err := h.storeExport(ctx, f, header, auth, &doc, lanes); err != nil {
			return err
		}
		change, err := put(device, state.KindImports, known.revision, doc)
		if err != nil {
			return err
		}
		_, err = h.docs.docs.Change(ctx, change)
		return err
	})
	if err != nil {
		return message.Receipt{}, err
	}
	receipt := message.Receipt{Export: header.ID, Device: header.Device, Hub: header.Hub, Store: header.Store, Imported: h.cfg.Now(), Lanes: []message.ReceiptLane{}}
	for _, l := range lanes {
		receipt.Lanes = append(receipt.Lanes, *l)
	}
	slices.SortFunc(receipt.Lanes, func(a, b message.ReceiptLane) int {
		return cmp.Or(strings.Compare(a.Sink, b.Sink), cmp.Compare(a.Priority, b.Priority))
	})
	return receipt.Sign(sign)
}

// verifyExport reads an export to its end, judges its signature by the identity that the hub knows, and counts its lanes.
func (h *Hub) verifyExport(ctx context.Context, f io.ReadSeeker, lanes map[string]*message.ReceiptLane) (message.ExportHeader, string, message.Signer, error) {
	var none message.ExportHeader
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return none, "", nil, err
	}
	e, err := message.NewExportReader(f)
	if err != nil {
		return none, "", nil, err
	}
	if !strings.EqualFold(e.Header.Hub, h.cfg.Host) {
		return none, "", nil, h.invalid(fmt.Sprintf("the export is for %.200q, this is %s", e.Header.Hub, h.cfg.Host))
	}
	id, err := iothub.NewID(e.Header.Device, "")
	if err != nil {
		return none, "", nil, fmt.Errorf("%w: %w", message.ErrExport, err)
	}
	known, err := h.docs.identity(ctx, id)
	if err != nil {
		return none, "", nil, err
	}
	if known.doc.Status == statusDisabled {
		return none, "", nil, h.gate.refuse("the device is disabled")
	}
	for {
		x, err := e.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return none, "", nil, err
		}
		if err := count(lanes, x); err != nil {
			return none, "", nil, err
		}
	}
	auth, verify, sign := authByKey, message.VerifyWithKeys(known.doc.Auth.keys()...), message.SignWithCertificate(h.tls.Certificates[0])
	if known.doc.Auth.Type == authSelf {
		auth, verify = authByCert, message.VerifyWithCertificate(known.doc.Auth.accepts)
	} else if keys := known.doc.Auth.keys(); len(keys) > 0 {
		sign = message.SignWithKey(keys[0])
	}
	return e.Header, auth, sign, e.Verify(verify)
}

// accepts tells whether a certificate is the identity's own.
func (a authDoc) accepts(leaf *x509.Certificate) error {
	long, short := sha256.Sum256(leaf.Raw), sha1.Sum(leaf.Raw) //nolint:gosec // see the import
	for _, thumb := range []string{a.PrimaryThumb, a.SecondaryThumb} {
		if thumb != "" && (strings.EqualFold(thumb, hex.EncodeToString(long[:])) || strings.EqualFold(thumb, hex.EncodeToString(short[:]))) {
			return nil
		}
	}
	return errors.New("its certificate is not the device's")
}

// count adds a message to its lane. Numbers of a lane rise: the last one taken then says which were.
func count(lanes map[string]*message.ReceiptLane, x message.Exported) error {
	if !strings.HasPrefix(x.Sink, "upstream/") {
		return fmt.Errorf("%w: a message for %.64q, which is not the hub", message.ErrExport, x.Sink)
	}
	key := laneKey(x)
	l := lanes[key]
	switch {
	case l == nil && len(lanes) == maxImportLanes:
		return fmt.Errorf("%w: more than %d lanes", message.ErrExport, maxImportLanes)
	case l == nil:
		lanes[key] = &message.ReceiptLane{Sink: x.Sink, Priority: x.Priority, First: x.Seq, Last: x.Seq, Messages: 1}
		return nil
	case x.Seq <= l.Last:
		return fmt.Errorf("%w: message %d of %.64q is behind %d", message.ErrExport, x.Seq, x.Sink, l.Last)
	}
	l.Last, l.Messages = x.Seq, l.Messages+1
	return nil
}

func laneKey(x message.Exported) string { return fmt.Sprintf("%s %d", x.Sink, x.Priority) }

// storeExport appends what was not taken before to the log, waits until it is durable, and moves doc on.
func (h *Hub) storeExport(ctx context.Context, f io.ReadSeeker, header message.ExportHeader, auth string, doc *importDoc, lanes map[string]*message.ReceiptLane) error {
	doc.V = 1
	if doc.Stores == nil {
		doc.Stores = map[string]map[string]uint64{}
	}
	taken := doc.Stores[header.Store]
	if taken == nil {
		taken = map[string]uint64{}
		doc.Stores[header.Store] = taken
		if doc.Order = append(doc.Order, header.Store); len(doc.Order) > maxImportStores {
			delete(doc.Stores, doc.Order[0])
			doc.Order = doc.Order[1:]
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	e, err := message.NewExportReader(f)
	if err != nil {
		return err
	}
	for _, l := range lanes {
		l.New = 0
	}
	appender := h.state.Log().Appender()
	stored := make(chan error, 256)
	waiting := 0
	collect := func(limit int) (err error) {
		for ; waiting > limit; waiting-- {
			err = errors.Join(err, <-stored)
		}
		return err
	}
	for {
		x, err := e.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && x.Seq > taken[laneKey(x)] {
			var event state.Event
			if event, err = h.exportedEvent(header, auth, x); err == nil {
				if err = appender.Append(ctx, event, func(err error) { stored <- err }); err == nil {
					waiting++
					lanes[laneKey(x)].New++
					err = collect(cap(stored) - 1)
				}
			}
		}
		if err != nil {
			return errors.Join(err, collect(0))
		}
	}
	if err := collect(0); err != nil {
		return err
	}
	for key, l := range lanes {
		taken[key] = max(taken[key], l.Last)
	}
	return nil
}

// exportedEvent is a stored message as it stands in the log, under the identity of its lane.
func (h *Hub) exportedEvent(header message.ExportHeader, auth string, x message.Exported) (state.Event, error) {
	m, err := message.Decode(x.Body)
	if err != nil {
		return state.Event{}, fmt.Errorf("%w: message %d: %w", message.ErrExport, x.Seq, err)
	}
	module := strings.TrimPrefix(x.Sink, "upstream/")
	if module == "_" {
		module = ""
	}
	if _, err := iothub.NewID(header.Device, module); err != nil {
		return state.Event{}, fmt.Errorf("%w: message %d: %w", message.ErrExport, x.Seq, err)
	}
	return state.Event{
		Device: header.Device, Module: module, Kind: state.EventTelemetry, Auth: auth,
		Properties: m.Upstream().Without(iothub.PropSourceDevice, iothub.PropSourceModule).String(), Body: m.Body,
		ID: fmt.Sprintf("export %s %s %s %d %d", header.Device, header.Store, x.Sink, x.Priority, x.Seq),
	}, nil
}
