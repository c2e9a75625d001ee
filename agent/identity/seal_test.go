package identity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

// goldenSealed is "golden" sealed for filter, generation 123456789012345678, vector "iv", with the master key of testdata/v1.
var goldenSealed = unhex("01a72166006f8282ad17269fbecc83b32e9afa0063bb7c70ea4992f405fbf31144bcc4")

func unhex(s string) []byte {
	raw, err := hex.DecodeString(s)
	if err != nil {
		return nil
	}
	return raw
}

func TestOnlyTheSameModuleGenerationAndVectorOpens(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	sealed, err := b.Seal("filter", "1", []byte("vector"), []byte("secret of filter"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.again(t, nil).Open("filter", "1", []byte("vector"), sealed); err != nil || string(got) != "secret of filter" {
		t.Errorf("after a restart: got %q, %v", got, err)
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	tests := map[string]struct {
		module, generation, vector string
		sealed                     []byte
	}{
		"another module":                     {"other", "1", "vector", sealed},
		"another generation":                 {"filter", "2", "vector", sealed},
		"another vector":                     {"filter", "1", "", sealed},
		"module and generation joined alike": {"filter1", "", "vector", sealed},
		"one bit flipped":                    {"filter", "1", "vector", flipped},
		"cut short":                          {"filter", "1", "vector", sealed[:12]},
		"empty":                              {"filter", "1", "vector", nil},
		"unknown version":                    {"filter", "1", "vector", append([]byte{9}, sealed[1:]...)},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := b.Open(tc.module, tc.generation, []byte(tc.vector), tc.sealed); !errors.Is(err, ErrSealed) {
				t.Errorf("got %q, %v, want %v", got, err, ErrSealed)
			}
		})
	}
}

func TestARepeatedVectorGivesNothingAway(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	iv := []byte("always the same")
	one, _ := b.Seal("filter", "1", iv, []byte("attack at dawn"))
	two, _ := b.Seal("filter", "1", iv, []byte("attack at dusk"))
	if bytes.Equal(one[1:1+nonceSize], two[1:1+nonceSize]) {
		t.Error("two plaintexts share a nonce")
	}
}

func FuzzOpen(f *testing.F) {
	v := &vault{master: make([]byte, 32)}
	sealed, _ := v.seal("m", "1", []byte("iv"), []byte("text"))
	f.Add("m", "1", []byte("iv"), sealed)
	f.Add("", "", []byte(nil), []byte{sealVersion})
	f.Fuzz(func(t *testing.T, module, generation string, vector, text []byte) {
		if plain, err := v.open(module, generation, vector, text); err == nil {
			again, err := v.seal(module, generation, vector, plain)
			if err != nil || !bytes.Equal(again, text) {
				t.Errorf("opened %x but sealing gives %x (%v)", text, again, err)
			}
		}
		sealed, err := v.seal(module, generation, vector, text)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := v.open(module, generation, vector, sealed); err != nil || !bytes.Equal(back, text) {
			t.Errorf("got %x, %v, want %x", back, err, text)
		}
	})
}
