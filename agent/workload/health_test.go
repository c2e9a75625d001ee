package workload

import (
	"testing"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	b := serve(t, nil)
	if err := b.module.Health(t.Context(), Health{Note: "no sensor"}); err != nil {
		t.Fatal(err)
	}
	if got := <-b.health; got.Healthy || got.Note != "no sensor" {
		t.Errorf("got %+v, want unhealthy with a note", got)
	}
	if status, _, _ := b.ask(t, "POST", "/v1/health", ""); status != 204 {
		t.Errorf("got %d, want 204", status)
	}
	if got := <-b.health; !got.Healthy {
		t.Errorf("empty body: got %+v, want healthy", got)
	}
}
