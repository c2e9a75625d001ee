package workload

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// A hostile module tries what is another's, and what is nobody's: each gets the answer of a name that does not exist.
func TestWhatIsAnothersLooksLikeNonsenseHoweverItIsAskedFor(t *testing.T) {
	t.Parallel()
	k, _ := pinBoard(t)
	if err := k.cfg.Hal.Grant("other", []hal.Grant{{Name: "secret", Read: true, Write: true}}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.cfg.Hal.Write(t.Context(), "other", "secret", 1, 0, 0); err != nil {
		t.Fatal(err)
	}
	handler := k.handler()
	ask := func(method, path, body string) (int, string) {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/hal/%s", ""},
		{"GET", "/v1/hal/%s?max_age=1h", ""},
		{"PUT", "/v1/hal/%s", `{"value":0}`},
		{"PUT", "/v1/hal/%s", `{"value":0,"for":"1s"}`},
		{"POST", "/v1/hal/%s/transfer", `{"r":1}`},
		{"GET", "/v1/hal/%s/events", ""},
		{"POST", "/v1/hal/batch", `{"ops":[{"name":"%s"}]}`},
		{"POST", "/v1/hal/batch", `{"ops":[{"name":"%s","value":0}]}`},
		{"POST", "/v1/hal/leases", `{"names":["%s"]}`},
	} {
		fill := func(s, name string) string { return strings.ReplaceAll(s, "%s", name) }
		status, body := ask(c.method, fill(c.path, "secret"), fill(c.body, "secret"))
		for _, nonsense := range []string{"nothing", "..", "a%2fb", "x%00y", strings.Repeat("n", 4096)} {
			if strings.Contains(c.path, "%s") && nonsense == ".." {
				continue // the path of another call
			}
			if got, text := ask(c.method, fill(c.path, nonsense), fill(c.body, "nothing")); got != status || text != body {
				t.Errorf("%s %s: got %d %s, for %.20q %d %s", c.method, c.path, status, body, nonsense, got, text)
			}
		}
		if status != http.StatusNotFound || strings.Contains(body, "secret") {
			t.Errorf("%s %s: got %d %s, want 404 without the name", c.method, c.path, status, body)
		}
	}
	if got, text := ask("GET", "/v1/hal", ""); got != http.StatusOK || strings.Contains(text, "secret") {
		t.Errorf("list: got %d %s", got, text)
	}
	if v, err := k.cfg.Hal.Read(t.Context(), "other", "secret", hal.ClassRead, 0); err != nil || v.Num != 1 {
		t.Errorf("the other's output: got %v, %v, want it untouched", v.Num, err)
	}
}

func TestBodiesThatAreHalfHugeOrDeepAreRefused(t *testing.T) {
	t.Parallel()
	k, _ := pinBoard(t)
	handler := k.handler()
	for name, body := range map[string]string{
		"half":          `{"value":`,
		"a list":        `[]`,
		"text":          `{"value":"1"}`,
		"not a number":  `{"value":NaN}`,
		"a long pulse":  `{"value":1,"for":"9000h"}`,
		"a wrong time":  `{"value":1,"for":"-1s"}`,
		"deep":          strings.Repeat("[", 20_000),
		"a fence below": `{"value":1,"fence":-1}`,
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/v1/hal/relay", strings.NewReader(body)))
		if w.Code < 400 || w.Code >= 500 {
			t.Errorf("%s: got %d %s, want a refusal", name, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/v1/hal/relay", strings.NewReader(strings.Repeat(" ", maxHalBody+1))))
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge one: got %d", w.Code)
	}
	ops := make([]string, 65)
	for i := range ops {
		ops[i] = `{"name":"relay"}`
	}
	w = httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/hal/batch", strings.NewReader(fmt.Sprintf(`{"ops":[%s]}`, strings.Join(ops, ",")))))
	if w.Code != http.StatusBadRequest {
		t.Errorf("65 operations: got %d %s", w.Code, w.Body)
	}
}
