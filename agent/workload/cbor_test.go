package workload

import (
	"testing"
)

func FuzzToJSON(f *testing.F) {
	for _, doc := range []string{`{"a":[1,-2,2.5,true,null,"x"]}`, `18446744073709551615`, `{"a":{"b":{}}}`} {
		raw, err := toCBOR([]byte(doc))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{0xf9, 0x7e, 0x00})
	f.Add([]byte{0x9f, 0x9f, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, err := toJSON(raw)
		if err != nil {
			return
		}
		again, err := toCBOR(doc)
		if err != nil {
			t.Fatalf("JSON %s made from CBOR is refused: %v", doc, err)
		}
		back, err := toJSON(again)
		if err != nil || string(back) != string(doc) {
			t.Errorf("got %s, %v, want %s", back, err, doc)
		}
	})
}
