package workload

import (
	"errors"
	"net/http"
	"testing"
)

func TestASecondStreamIsRefused(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	for _, path := range []string{"/v1/messages/inputs", "/v1/methods", "/v1/twin/desired"} {
		first, err := b.module.request(t.Context(), http.MethodGet, path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		var conflict *AnswerError
		if _, err := b.module.request(t.Context(), http.MethodGet, path, "", nil); !errors.As(err, &conflict) || conflict.Status != 409 {
			t.Errorf("%s: got %v, want status 409", path, err)
		}
		first.Body.Close()
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	ended := make(chan error, 1)
	opened, err := b.module.request(t.Context(), http.MethodGet, "/v1/messages/inputs", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 1)
		_, err := opened.Body.Read(buf)
		ended <- err
	}()
	b.stop()
	if err := <-ended; err == nil {
		t.Error("the stream is still open")
	}
	opened.Body.Close()
}
