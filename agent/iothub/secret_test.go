package iothub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// leaks are the forms in which a secret might show up in a text.
func leaks(key Key) []string {
	return []string{key.Text(), string(key), fmt.Sprintf("%x", []byte(key)), fmt.Sprintf("%X", []byte(key)), fmt.Sprintf("%v", []byte(key))}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	key := Key("raw key bytes, 32 of them, here!")
	secret := Secret("SharedAccessSignature sr=a&sig=hush&se=1")
	c := ConnectionString{Host: "hub", ID: ID{Device: "dev"}, Key: key}
	minted, err := MintToken("hub/devices/dev", "", time.Unix(1795551440, 0), key.Signer())
	if err != nil {
		t.Fatal(err)
	}
	token, err := ParseToken(minted)
	if err != nil {
		t.Fatal(err)
	}
	forbidden := append(leaks(key), "hush", minted.Reveal(), fmt.Sprint(token.signature), fmt.Sprintf("%x", token.signature))
	values := map[string]any{
		"key": key, "pointer to key": &key, "secret": secret, "pointer to secret": &secret, "token": token,
		"connection string": c, "struct": struct{ K Key }{key}, "map": map[string]Secret{"s": secret}, "slice": []Key{key},
	}
	for name, v := range values {
		var printed strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x"} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%s: JSON: %v", name, err)
		}
		printed.Write(text)
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "v", v)
		printed.Write(log.Bytes())
		for _, bad := range forbidden {
			if strings.Contains(printed.String(), bad) {
				t.Errorf("%s prints %q:\n%s", name, bad, printed.String())
			}
		}
	}
	if secret.Reveal() != "SharedAccessSignature sr=a&sig=hush&se=1" || secret.String() != hidden || key.String() != hidden ||
		key.GoString() != hidden || secret.GoString() != hidden {
		t.Error("Reveal must give the text, everything else hide it")
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		bad  bool
	}{
		"32 bytes":          {text: "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="},
		"one byte":          {text: "QQ=="},
		"empty":             {text: "", bad: true},
		"not base64":        {text: "hush!", bad: true},
		"no padding":        {text: "QQ", bad: true},
		"bits left over":    {text: "QR==", bad: true},
		"the other charset": {text: "-_-_", bad: true},
		"too long":          {text: strings.Repeat("QUFB", MaxKeyText/4+1), bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, err := ParseKey(tc.text)
			if (err != nil) != tc.bad || (err == nil && key.Text() != tc.text) {
				t.Fatalf("got %q, error %v, want error: %t", key.Text(), err, tc.bad)
			}
			if err != nil && tc.text != "" && strings.Contains(err.Error(), tc.text) {
				t.Fatalf("the error repeats the key: %v", err)
			}
		})
	}
	if a, b := NewKey(), NewKey(); len(a) != 32 || bytes.Equal(a, b) {
		t.Error("two new keys are equal or not of 32 bytes")
	}
	var fromJSON struct{ K Key }
	if err := json.Unmarshal([]byte(`{"K":"QUI="}`), &fromJSON); err != nil || string(fromJSON.K) != "AB" {
		t.Errorf("a key in JSON: got %q, error %v", string(fromJSON.K), err)
	}
}
