package workload

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// libraryRequest is a frame as the CBOR library reads it.
type libraryRequest struct {
	ID    uint64      `cbor:"id"`
	Ops   []libraryOp `cbor:"ops,omitempty"`
	Limit uint32      `cbor:"deadline,omitempty"`
	Watch string      `cbor:"watch,omitempty"`
	From  uint64      `cbor:"from,omitempty"`
	libraryOp
}

type libraryOp struct {
	Name  string       `cbor:"name,omitempty"`
	Value *float64     `cbor:"value,omitempty"`
	For   uint32       `cbor:"for,omitempty"`
	Fence uint64       `cbor:"fence,omitempty"`
	W     []byte       `cbor:"w,omitempty"`
	R     int          `cbor:"r,omitempty"`
	Fn    hal.Function `cbor:"fn,omitempty"`
	Addr  uint16       `cbor:"addr,omitempty"`
	N     uint16       `cbor:"n,omitempty"`
	CAN   uint32       `cbor:"can,omitempty"`
}

func (o libraryOp) text() string {
	value := "none"
	if o.Value != nil {
		value = fmt.Sprint(*o.Value)
	}
	return fmt.Sprintf("%q %s %d %d %x %d %q %d %d %d", o.Name, value, o.For, o.Fence, o.W, o.R, o.Fn, o.Addr, o.N, o.CAN)
}

func (r libraryRequest) text() string {
	s := fmt.Sprintf("%d %d %q %d %s", r.ID, r.Limit, r.Watch, r.From, r.libraryOp.text())
	for _, o := range r.Ops {
		s += " | " + o.text()
	}
	return s
}

func (o *frameOp) library() libraryOp {
	l := libraryOp{Name: o.Name, For: o.For, Fence: o.Fence, W: o.W, R: o.R, Fn: o.Fn, Addr: o.Addr, N: o.N, CAN: o.CAN}
	if o.Writes {
		l.Value = &o.Value
	}
	return l
}

func (r *frameRequest) library() libraryRequest {
	l := libraryRequest{ID: r.ID, Limit: r.Limit, Watch: r.Watch, From: r.From, libraryOp: r.frameOp.library()}
	if r.Batch {
		for i := range r.Ops {
			l.Ops = append(l.Ops, r.Ops[i].library())
		}
	}
	return l
}

func libraryReads(t *testing.T, raw []byte) (libraryRequest, error) {
	t.Helper()
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	var r libraryRequest
	return r, mode.Unmarshal(raw, &r)
}

func FuzzFrameIsReadAsTheLibraryReadsIt(f *testing.F) {
	one := 1.0
	for _, doc := range []any{
		libraryRequest{ID: 7, libraryOp: libraryOp{Name: "relay-1", Value: &one, For: 200, Fence: 1 << 40}},
		libraryRequest{ID: 8, Limit: 50, Ops: []libraryOp{{Name: "imu", W: []byte{0x6b, 0}}, {Name: "imu", R: 6}, {Name: "relay-1", Value: &one}}},
		libraryRequest{Watch: "door", From: 12}, libraryRequest{libraryOp: libraryOp{Fn: hal.ReadHolding, Addr: 3, N: 2, CAN: 1 << 31}},
		map[string]any{"id": 1, "name": "x", "value": -3, "more": []any{map[string]any{"a": 1.5}, nil, true}}, map[string]any{"value": float32(0.5), "w": nil},
		[]any{}, nil,
	} {
		raw, err := cbor.Marshal(doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{0xa1, 0x65, 'v', 'a', 'l', 'u', 'e', 0xf9, 0x3c, 0x00})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r frameRequest
		if readRequest(raw, &r) != nil {
			return
		}
		want, err := libraryReads(t, raw)
		var twice *cbor.DupMapKeyError
		if errors.As(err, &twice) { // a key that is of no use came twice
			return
		}
		if err != nil {
			t.Fatalf("got %+v of what the library refuses: %v", r, err)
		}
		if got := r.library(); got.text() != want.text() {
			t.Fatalf("got %s, want %s", got.text(), want.text())
		}
	})
}

func TestFrameOfEachKindIsReadAndItsRoomUsedAgain(t *testing.T) {
	t.Parallel()
	half := 0.5
	var r frameRequest
	for _, want := range []libraryRequest{
		{ID: 1, Limit: 9, Ops: []libraryOp{{Name: "a", Value: &half, For: 1, Fence: 2}, {Name: "b", W: []byte{1}, R: 3}}},
		{ID: 2, libraryOp: libraryOp{Name: "c", Fn: hal.WriteCoils, Addr: 65535, N: 300, CAN: 5}},
		{ID: 1 << 60, Ops: []libraryOp{{Name: "d"}}},
		{Watch: "door", From: 1 << 33},
	} {
		raw, err := cbor.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := readRequest(raw, &r); err != nil {
			t.Fatal(err)
		}
		if got := r.library(); got.text() != want.text() {
			t.Errorf("got %s, want %s", got.text(), want.text())
		}
	}
}

func TestWhatIsNoFrameIsRefused(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string]string{
		"nothing": "", "a list": "80", "a map without an end": "bf", "a tag": "c1a0", "a key twice": "a2626964016269" + "6402", "a key that is no text": "a10102",
		"more than one document": "a0a0", "a length beyond the frame": "a164" + "6e616d65" + "7bffffffffffffffff", "a name that is bytes": "a1646e616d654161",
		"a fraction for a count": "a1616ef93c00", "a count too large": "a1616e1a00010000", "a text that is not UTF-8": "a1646e616d6561ff",
		"257 operations": "a1636f70731901" + "01", "nine levels": "a1617881818181818181818100",
	} {
		raw, err := hex.DecodeString(doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := readRequest(raw, new(frameRequest)); !errors.Is(err, errFrame) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
}

func TestAnswerIsWhatTheLibraryReads(t *testing.T) {
	t.Parallel()
	v := -61.25
	for name, want := range map[string]frameAnswer{
		"a read":  {ID: 1 << 40, frameResult: frameResult{Value: &v, Mono: 5432422144, Quality: hal.Good}},
		"a write": {ID: 23, frameResult: frameResult{Fence: 1 << 33}},
		"a batch": {ID: 24, Ops: []frameResult{{Fence: 255}, {R: []byte{1, 2, 3}}, {Value: &v, Mono: -1}, {}}},
		"events":  {ID: 256, Events: []frameEvent{{Seq: 70000, Lost: 2, Merged: 1, Edge: hal.Rising, Mono: 1}, {Seq: 1, CAN: 0x321, Data: make([]byte, 8)}}},
		"a no":    {ID: 65536, Error: &refusal{Code: hal.TooFast, Name: "relay-1", Detail: "more than 10/s", Retry: 100}},
	} {
		var got frameAnswer
		if err := cbor.Unmarshal(want.append(nil), &got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func FuzzBodyOfAWriteIsReadAsTheLibraryReadsIt(f *testing.F) {
	for _, body := range []string{`{"value":1}`, ` { "value" : -0.5 , "for":"200ms","fence":7 } `, `{"value":1e3}`, `{"value":01}`, `{"value":1,"value":2}`, `{"for":"1\u0073","value":1}`,
		`{"value":null}`, `{"value":1,}`, `{"fence":-1}`, `{"value":"1"}`, `{}`, `[]`, `{"VALUE":3}`, `{"for":"-1s"}`, `{"fence":1.0}`, `{"value":1}}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want halWriteDoc
		got, err := readHalWrite(raw)
		if wantErr := json.Unmarshal(raw, &want); (err == nil) != (wantErr == nil) {
			t.Fatalf("got %v, want %v", err, wantErr)
		}
		if err == nil && got != want.write() {
			t.Fatalf("got %+v, want %+v", got, want.write())
		}
	})
}
