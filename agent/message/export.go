package message

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// An export is a file that carries stored messages past a link that is down: written by the device, signed with its key,
// read by the hub it names. All integers are big endian.
//
//	"SPEXPORT" | frame header | frame record … | frame end
//	frame  = u32 length of what follows | u8 kind | payload
//	header = text id | text device | text hub | text store | u64 Unix microseconds, 0 = unknown     (text = u16 length | bytes)
//	record = u8 priority | u64 seq | text sink | body
//	end    = u64 number of records | text algorithm | text signature | text certificate
//
// The signature is over the SHA-256 of all bytes before the end frame. Nothing in the file is to be believed before it was verified.

const (
	exportMagic = "SPEXPORT"

	frameHeader = 1
	frameRecord = 2
	frameEnd    = 3

	// maxFrame bounds one frame, in bytes: a record of the largest body the queue takes.
	maxFrame = 520 << 10
	// maxText bounds ids and names in an export, in bytes.
	maxText = 1024
)

// ErrExport is wrapped by every error about the content of an export or a receipt.
var ErrExport = errors.New("not an export that can be read")

// ExportHeader says whose export it is and for whom.
type ExportHeader struct {
	ID      string    // different for every export
	Device  string    // who signs
	Hub     string    // host name of the hub it is for: another one refuses it
	Store   string    // names the queue whose sequence numbers are used; another store has another name
	Created time.Time // zero = the device did not know the time
}

// Exported is one stored message as an export carries it.
type Exported struct {
	Sink     string
	Priority uint8
	Seq      uint64 // rises within a sink and priority
	Body     []byte // an encoded [Message]
}

// ExportWriter writes an export. It is not safe for concurrent use.
type ExportWriter struct {
	w     *bufio.Writer
	sum   hash.Hash
	count uint64
	buf   []byte
}

// NewExportWriter begins an export.
func NewExportWriter(w io.Writer, h ExportHeader) (*ExportWriter, error) {
	e := &ExportWriter{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	if err := e.put([]byte(exportMagic)); err != nil {
		return nil, err
	}
	payload := []byte{frameHeader}
	for _, text := range []string{h.ID, h.Device, h.Hub, h.Store} {
		if len(text) > maxText {
			return nil, fmt.Errorf("write export: a name of %d bytes, at most %d", len(text), maxText)
		}
		payload = appendSized(payload, text)
	}
	created := uint64(0)
	if !h.Created.IsZero() {
		created = uint64(h.Created.UnixMicro())
	}
	return e, e.frame(binary.BigEndian.AppendUint64(payload, created))
}

// Add appends one message.
func (e *ExportWriter) Add(x Exported) error {
	if len(x.Sink) > maxText || len(x.Body)+len(x.Sink)+12 > maxFrame {
		return fmt.Errorf("write export: message %d of %d bytes is too large", x.Seq, len(x.Body))
	}
	e.buf = append(e.buf[:0], frameRecord, x.Priority)
	e.buf = binary.BigEndian.AppendUint64(e.buf, x.Seq)
	e.buf = append(appendSized(e.buf, x.Sink), x.Body...)
	e.count++
	return e.frame(e.buf)
}

// Close signs what was written and returns how many messages that were. It does not close what it wrote to.
func (e *ExportWriter) Close(sign Signer) (uint64, error) {
	seal, err := sign(e.sum.Sum(nil))
	if err != nil {
		return 0, fmt.Errorf("sign export: %w", err)
	}
	payload := binary.BigEndian.AppendUint64([]byte{frameEnd}, e.count)
	payload = appendSized(payload, seal.Algorithm)
	payload = appendSized(payload, string(seal.Signature))
	payload = appendSized(payload, string(seal.Certificate))
	if err := e.frame(payload); err != nil {
		return 0, err
	}
	return e.count, e.w.Flush()
}

func (e *ExportWriter) frame(payload []byte) error {
	if err := e.put(binary.BigEndian.AppendUint32(nil, uint32(len(payload)))); err != nil {
		return err
	}
	return e.put(payload)
}

func (e *ExportWriter) put(b []byte) error {
	_, _ = e.sum.Write(b) // a hash takes everything
	_, err := e.w.Write(b)
	return err
}

func appendSized(dst []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(text))), text...)
}

// ExportReader reads an export. It believes no length that it has not bounded.
type ExportReader struct {
	Header ExportHeader

	r     *bufio.Reader
	sum   hash.Hash
	count uint64
	buf   []byte
	seal  *Seal
}

// NewExportReader reads the header of an export.
func NewExportReader(r io.Reader) (*ExportReader, error) {
	e := &ExportReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	magic := make([]byte, len(exportMagic))
	if _, err := io.ReadFull(e.r, magic); err != nil || string(magic) != exportMagic {
		return nil, fmt.Errorf("%w: it does not begin as one", ErrExport)
	}
	_, _ = e.sum.Write(magic)
	payload, err := e.frame()
	if err != nil {
		return nil, err
	}
	if payload[0] != frameHeader {
		return nil, fmt.Errorf("%w: it has no header", ErrExport)
	}
	e.hash(payload)
	p := fields{rest: payload[1:]}
	e.Header = ExportHeader{ID: p.text(), Device: p.text(), Hub: p.text(), Store: p.text()}
	if created := p.number(); created != 0 {
		e.Header.Created = time.UnixMicro(int64(created)).UTC()
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	for _, text := range []string{e.Header.ID, e.Header.Device, e.Header.Hub, e.Header.Store} {
		if len(text) > maxText {
			return nil, fmt.Errorf("%w: a name of %d bytes, at most %d", ErrExport, len(text), maxText)
		}
	}
	return e, nil
}

// Next returns the next message, or io.EOF behind the last. The body is valid until the next call.
func (e *ExportReader) Next() (Exported, error) {
	if e.seal != nil {
		return Exported{}, io.EOF
	}
	payload, err := e.frame()
	if err != nil {
		return Exported{}, err
	}
	p := fields{rest: payload[1:]}
	switch payload[0] {
	case frameRecord:
		x := Exported{Priority: p.byte(), Seq: p.number(), Sink: p.text()}
		if p.bad || len(x.Sink) > maxText {
			return Exported{}, fmt.Errorf("%w: a record that is none", ErrExport)
		}
		x.Body = p.rest
		e.count++
		e.hash(payload)
		return x, nil
	case frameEnd:
		n := p.number()
		seal := &Seal{Algorithm: p.text(), Signature: []byte(p.text()), Certificate: []byte(p.text()), digest: e.sum.Sum(nil)}
		if err := p.end(); err != nil {
			return Exported{}, err
		}
		if n != e.count {
			return Exported{}, fmt.Errorf("%w: it holds %d messages and says %d", ErrExport, e.count, n)
		}
		if _, err := e.r.ReadByte(); !errors.Is(err, io.EOF) {
			return Exported{}, fmt.Errorf("%w: something follows its end", ErrExport)
		}
		e.seal = seal
		return Exported{}, io.EOF
	}
	return Exported{}, fmt.Errorf("%w: frame of unknown kind %d", ErrExport, payload[0])
}

// Verify judges the signature, once Next has returned io.EOF.
func (e *ExportReader) Verify(verify Verifier) error {
	if e.seal == nil {
		return fmt.Errorf("%w: it was not read to its end", ErrExport)
	}
	return verify(e.seal.digest, *e.seal)
}

// frame reads one frame; the payload has at least its kind.
func (e *ExportReader) frame() ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(e.r, length[:]); err != nil {
		return nil, fmt.Errorf("%w: it ends too early", ErrExport)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > maxFrame {
		return nil, fmt.Errorf("%w: frame of %d bytes, want 1 to %d", ErrExport, n, maxFrame)
	}
	if cap(e.buf) < int(n) {
		e.buf = make([]byte, n)
	}
	e.buf = e.buf[:n]
	if _, err := io.ReadFull(e.r, e.buf); err != nil {
		return nil, fmt.Errorf("%w: it ends too early", ErrExport)
	}
	return e.buf, nil
}

// hash takes a frame into the digest that is signed; the end frame is not part of it.
func (e *ExportReader) hash(payload []byte) {
	_, _ = e.sum.Write(binary.BigEndian.AppendUint32(nil, uint32(len(payload)))) // a hash takes everything
	_, _ = e.sum.Write(payload)
}

// fields takes a payload apart; after the first that is not there everything is zero.
type fields struct {
	rest []byte
	bad  bool
}

func (p *fields) take(n int) []byte {
	if p.bad || n > len(p.rest) {
		p.bad = true
		return nil
	}
	out := p.rest[:n]
	p.rest = p.rest[n:]
	return out
}

func (p *fields) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *fields) number() uint64 {
	if b := p.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (p *fields) text() string {
	b := p.take(2)
	if b == nil {
		return ""
	}
	return string(p.take(int(binary.BigEndian.Uint16(b))))
}

func (p *fields) end() error {
	if p.bad || len(p.rest) > 0 {
		return fmt.Errorf("%w: a frame has another length than its content", ErrExport)
	}
	return nil
}
