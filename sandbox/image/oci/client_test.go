package oci_test

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

func TestAServersHeadersAreBoundedAndNothingIsUnpackedOnTheWay(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "" {
			t.Errorf("asked for %q", got)
		}
		if r.URL.Path == "/flood" {
			for range 20 {
				w.Header().Add("X-Flood", strings.Repeat("x", 4096))
			}
		}
	}))
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	client := oci.HTTPClient(roots)
	t.Cleanup(client.CloseIdleConnections)
	for path, bad := range map[string]bool{"/": false, "/flood": true} {
		resp, err := client.Get(srv.URL + path)
		if err == nil {
			resp.Body.Close()
		}
		if (err != nil) != bad {
			t.Errorf("%s: got %v, want an error: %v", path, err, bad)
		}
	}
}
