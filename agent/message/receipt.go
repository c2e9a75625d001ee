package message

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
)

// MaxReceipt bounds a receipt, in bytes.
const MaxReceipt = 1 << 20

// maxReceiptLanes bounds the lanes of a receipt.
const maxReceiptLanes = 8192

// Receipt says what a hub took from an export. The device acknowledges that much of its queue, whoever brought the receipt.
type Receipt struct {
	Version   int           `json:"version"` // 1
	Export    string        `json:"export"`  // its id
	Device    string        `json:"device"`
	Hub       string        `json:"hub"`
	Store     string        `json:"store"`
	Imported  time.Time     `json:"imported"`
	Lanes     []ReceiptLane `json:"lanes"`
	Algorithm string        `json:"algorithm"`
	Signature []byte        `json:"signature"`
	Cert      []byte        `json:"certificate,omitempty"`
}

// ReceiptLane is what was taken of one sink at one priority: every message of the export with a number from First to Last.
type ReceiptLane struct {
	Sink     string `json:"sink"`
	Priority uint8  `json:"priority"`
	First    uint64 `json:"first"`
	Last     uint64 `json:"last"`
	Messages uint64 `json:"messages"`
	New      uint64 `json:"new"` // not taken from an earlier export
}

// ParseReceipt reads a receipt. Nothing in it is to be believed before [Receipt.Verify].
func ParseReceipt(raw []byte) (Receipt, error) {
	var r Receipt
	if len(raw) > MaxReceipt {
		return r, fmt.Errorf("%w: a receipt of %d bytes, at most %d", ErrExport, len(raw), MaxReceipt)
	}
	in := json.NewDecoder(bytes.NewReader(raw))
	in.DisallowUnknownFields()
	if err := in.Decode(&r); err != nil {
		return Receipt{}, fmt.Errorf("%w: receipt: %w", ErrExport, err)
	}
	if in.More() {
		return Receipt{}, fmt.Errorf("%w: something follows the receipt", ErrExport)
	}
	if r.Version != 1 {
		return Receipt{}, fmt.Errorf("%w: a receipt of version %d, want 1", ErrExport, r.Version)
	}
	if len(r.Lanes) > maxReceiptLanes {
		return Receipt{}, fmt.Errorf("%w: a receipt of %d lanes, at most %d", ErrExport, len(r.Lanes), maxReceiptLanes)
	}
	for _, l := range r.Lanes {
		if l.First > l.Last || len(l.Sink) > maxText || l.Messages == 0 || l.Messages-1 > l.Last-l.First {
			return Receipt{}, fmt.Errorf("%w: receipt: lane %.64q from %d to %d with %d messages", ErrExport, l.Sink, l.First, l.Last, l.Messages)
		}
	}
	return r, nil
}

// digest is over every member but the signature, each with its length, so that two receipts never say the same in other words.
func (r Receipt) digest() []byte {
	out := []byte("receipt\n")
	for _, text := range []string{r.Export, r.Device, r.Hub, r.Store} {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(text))), text...)
	}
	out = binary.BigEndian.AppendUint64(out, uint64(r.Imported.UnixMicro()))
	for _, l := range r.Lanes {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(l.Sink))), l.Sink...)
		out = append(out, l.Priority)
		for _, n := range []uint64{l.First, l.Last, l.Messages, l.New} {
			out = binary.BigEndian.AppendUint64(out, n)
		}
	}
	sum := sha256.Sum256(out)
	return sum[:]
}

// Sign returns the receipt with a signature.
func (r Receipt) Sign(sign Signer) (Receipt, error) {
	r.Version, r.Imported = 1, r.Imported.UTC().Truncate(time.Microsecond)
	seal, err := sign(r.digest())
	if err != nil {
		return Receipt{}, fmt.Errorf("sign receipt: %w", err)
	}
	r.Algorithm, r.Signature, r.Cert = seal.Algorithm, seal.Signature, seal.Certificate
	return r, nil
}

// Verify judges the signature.
func (r Receipt) Verify(verify Verifier) error {
	return verify(r.digest(), Seal{Algorithm: r.Algorithm, Signature: r.Signature, Certificate: r.Cert})
}
