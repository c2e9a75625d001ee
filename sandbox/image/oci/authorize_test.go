package oci

import (
	"strings"
	"testing"
)

func TestAChallengeIsReadAsRegistriesWriteIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][3]string{ // scheme, realm, service
		`Bearer realm="https://auth.example/token",service="registry.example"`:               {"Bearer", "https://auth.example/token", "registry.example"},
		`bearer service=registry.example, realm="https://auth.example/t?a=b,c", scope="x:y"`: {"bearer", "https://auth.example/t?a=b,c", "registry.example"},
		`Basic realm="here"`: {"Basic", "here", ""},
		`Negotiate`:          {"Negotiate", "", ""},
		``:                   {},
		`Bearer realm`:       {"Bearer", "", ""},
		`Bearer realm="open`: {"Bearer", "open", ""},
	} {
		scheme, params := parseChallenge(text)
		if got := [3]string{scheme, params["realm"], params["service"]}; got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a:pull"`)
	f.Add(`Basic realm=here`)
	f.Add(`Bearer realm="open`)
	f.Add("Bearer " + strings.Repeat("a=b,", 100))
	f.Fuzz(func(t *testing.T, text string) {
		scheme, params := parseChallenge(text)
		total := len(scheme)
		for key, value := range params {
			if key != strings.ToLower(key) {
				t.Errorf("the key %q is not in lower case", key)
			}
			total += len(value)
		}
		if len(params) > 16 || total > len(text) {
			t.Errorf("%d parameters, %d bytes of %d", len(params), total, len(text))
		}
		_ = private(params["realm"])
	})
}
