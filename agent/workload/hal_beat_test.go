package workload

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAStreamOfEventsThatIsSilentBeatsEachTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, sim := pinBoard(t)
		handler := k.handler()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		w, ended := httptest.NewRecorder(), make(chan struct{})
		go func() {
			defer close(ended)
			handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/hal/door/events", http.NoBody))
		}()
		<-time.After(25 * time.Second)
		sim.Set("door", 1)
		<-time.After(9 * time.Second)
		cancel()
		<-ended
		lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
		if len(lines) != 3 || lines[0] != `{"beat":true}` || lines[1] != lines[0] || !strings.Contains(lines[2], `"edge":"rising"`) {
			t.Errorf("got %q, want two beats in 25 s and then an edge", lines)
		}
	})
}
