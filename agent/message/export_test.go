package message

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

var (
	exportKey    = iothub.Key(bytes.Repeat([]byte{7}, 32))
	exportHeader = ExportHeader{ID: "0a1b", Device: "edge1", Hub: "hub.example.net", Store: "c0ffee", Created: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}
)

func writeExport(t testing.TB, n int, sign Signer) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewExportWriter(&out, exportHeader)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.Add(Exported{Sink: "upstream/m0", Priority: 10, Seq: uint64(i + 1), Body: fmt.Appendf(nil, "body %d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := w.Close(sign); err != nil || got != uint64(n) {
		t.Fatalf("close: got %d, %v, want %d", got, err, n)
	}
	return out.Bytes()
}

// readExport reads everything and then judges the signature, as a hub does.
func readExport(raw []byte, verify Verifier) (ExportHeader, []Exported, error) {
	r, err := NewExportReader(bytes.NewReader(raw))
	if err != nil {
		return ExportHeader{}, nil, err
	}
	var list []Exported
	for {
		x, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Header, list, r.Verify(verify)
		}
		if err != nil {
			return r.Header, nil, err
		}
		x.Body = bytes.Clone(x.Body)
		list = append(list, x)
	}
}

func TestAnExportIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	pair, _ := certtest.New(t, "")
	for name, c := range map[string]struct {
		sign   Signer
		verify Verifier
	}{
		"with a key": {SignWithKey(exportKey), VerifyWithKeys(iothub.NewKey(), exportKey)},
		"with a certificate": {SignWithCertificate(pair), VerifyWithCertificate(func(got *x509.Certificate) error {
			if !got.Equal(pair.Leaf) {
				return errors.New("another certificate")
			}
			return nil
		})},
	} {
		for _, n := range []int{0, 1, 300} {
			h, list, err := readExport(writeExport(t, n, c.sign), c.verify)
			if err != nil || h != exportHeader || len(list) != n {
				t.Fatalf("%s: got %+v, %d messages, %v", name, h, len(list), err)
			}
			for i, x := range list {
				if want := (Exported{"upstream/m0", 10, uint64(i + 1), fmt.Appendf(nil, "body %d", i)}); !reflect.DeepEqual(x, want) {
					t.Fatalf("%s: message %d: got %+v, want %+v", name, i, x, want)
				}
			}
		}
	}
}

func TestAnExportThatWasTouchedIsRefused(t *testing.T) {
	t.Parallel()
	good := writeExport(t, 3, SignWithKey(exportKey))
	for i := range good {
		raw := bytes.Clone(good)
		raw[i] ^= 1
		if _, _, err := readExport(raw, VerifyWithKeys(exportKey)); err == nil {
			t.Fatalf("byte %d changed: got no error", i)
		}
	}
	for n := range good {
		if _, _, err := readExport(good[:n], VerifyWithKeys(exportKey)); err == nil {
			t.Fatalf("cut to %d bytes: got no error", n)
		}
	}
	if _, _, err := readExport(append(bytes.Clone(good), 0), VerifyWithKeys(exportKey)); err == nil {
		t.Error("a byte behind it: got no error")
	}
	if _, _, err := readExport(good, VerifyWithKeys(iothub.NewKey())); !errors.Is(err, ErrSeal) {
		t.Errorf("another key: got %v, want %v", err, ErrSeal)
	}
	pair, _ := certtest.New(t, "")
	if _, _, err := readExport(writeExport(t, 1, SignWithCertificate(pair)), VerifyWithKeys(exportKey)); !errors.Is(err, ErrSeal) {
		t.Errorf("a certificate where a key is known: got %v, want %v", err, ErrSeal)
	}
}

func receipt(t testing.TB) Receipt {
	t.Helper()
	r, err := Receipt{
		Export: "0a1b", Device: "edge1", Hub: "hub.example.net", Store: "c0ffee", Imported: at,
		Lanes: []ReceiptLane{{Sink: "upstream/m0", Priority: 10, First: 1, Last: 9, Messages: 5, New: 2}},
	}.Sign(SignWithKey(exportKey))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAReceiptThatWasTouchedIsRefused(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(receipt(t))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseReceipt(raw)
	if err != nil || r.Verify(VerifyWithKeys(exportKey)) != nil {
		t.Fatalf("got %+v, %v, want it verified", r, err)
	}
	for name, touch := range map[string]func(*Receipt){
		"export": func(r *Receipt) { r.Export = "0a1c" }, "device": func(r *Receipt) { r.Device = "edge2" }, "store": func(r *Receipt) { r.Store = "d" },
		"last": func(r *Receipt) { r.Lanes[0].Last++ }, "sink": func(r *Receipt) { r.Lanes[0].Sink = "upstream/m1" },
		"time": func(r *Receipt) { r.Imported = r.Imported.Add(time.Second) }, "signature": func(r *Receipt) { r.Signature[0] ^= 1 },
		"lanes": func(r *Receipt) { r.Lanes = append(r.Lanes, r.Lanes[0]) },
	} {
		r := receipt(t)
		touch(&r)
		if err := r.Verify(VerifyWithKeys(exportKey)); !errors.Is(err, ErrSeal) {
			t.Errorf("%s changed: got %v, want %v", name, err, ErrSeal)
		}
	}
	for name, raw := range map[string]string{
		"nothing": ``, "a later version": `{"version":2}`, "an unknown member": `{"version":1,"x":1}`, "two": `{"version":1}{}`,
		"a lane backwards": `{"version":1,"lanes":[{"sink":"s","first":2,"last":1,"messages":1}]}`,
		"too many in it":   `{"version":1,"lanes":[{"sink":"s","first":1,"last":2,"messages":3}]}`,
	} {
		if _, err := ParseReceipt([]byte(raw)); !errors.Is(err, ErrExport) {
			t.Errorf("%s: got %v, want %v", name, err, ErrExport)
		}
	}
}

func FuzzExport(f *testing.F) {
	f.Add(writeExport(f, 0, SignWithKey(exportKey)))
	f.Add(writeExport(f, 2, SignWithKey(exportKey)))
	f.Add([]byte(exportMagic + "\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, list, err := readExport(raw, VerifyWithKeys(exportKey))
		if err != nil {
			if !errors.Is(err, ErrExport) && !errors.Is(err, ErrSeal) {
				t.Fatalf("error %v is of no kind", err)
			}
			return
		}
		var out bytes.Buffer
		w, err := NewExportWriter(&out, h)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			if err := w.Add(x); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Close(SignWithKey(exportKey)); err != nil || !bytes.Equal(out.Bytes(), raw) {
			t.Fatalf("%x is written back as %x, %v", raw, out.Bytes(), err)
		}
	})
}

func FuzzReceipt(f *testing.F) {
	raw, err := json.Marshal(receipt(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseReceipt(raw)
		if err != nil {
			if !errors.Is(err, ErrExport) {
				t.Fatalf("error %v is of no kind", err)
			}
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			return // a year that JSON has no form for
		}
		if back, err := ParseReceipt(again); err != nil || !bytes.Equal(back.digest(), r.digest()) {
			t.Fatalf("%s prints back as %s, %v", raw, again, err)
		}
	})
}
