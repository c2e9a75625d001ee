package broker_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt/mqtttest"
)

// authority makes a root, and a certificate of it for localhost.
func authority(t testing.TB) (server *tls.Config, roots *x509.CertPool, bundle []byte) {
	t.Helper()
	sign := func(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	root, rootKey := sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	leaf, leafKey := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: from, NotAfter: to, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, root, rootKey)
	roots = x509.NewCertPool()
	roots.AddCert(root)
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}); err != nil {
		t.Fatal(err)
	}
	server = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: leafKey}}}
	return server, roots, text.Bytes()
}

// serve opens further doors of the broker, until the rig stops.
func (r *rig) serve(mqttDoor, httpsDoor net.Listener) {
	ctx, cancel := context.WithCancel(r.ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := r.broker.Serve(ctx, mqttDoor, httpsDoor, mqtt.Origin{Label: "test"}); err != nil {
			r.t.Errorf("serve: %v", err)
		}
	})
	r.t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestBothDoorsSpeakTLS(t *testing.T) {
	t.Parallel()
	server, roots, _ := authority(t)
	r := newRig(t, settings{routes: []string{toHub}, tls: server})
	door, web := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	r.serve(door, web)
	want := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	dialer := &tls.Dialer{Config: want}
	c, err := mqtttest.Dial(r.ctx, func(ctx context.Context) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", door.Addr().String())
	}, options(mod1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	r.publish(c, events, "over TLS")
	if got := r.waiting("upstream/mod1"); len(got) != 1 {
		t.Errorf("got %q, want the message", got)
	}
	tr := &http.Transport{
		TLSClientConfig: want, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", web.Addr().String())
		},
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(r.ctx, http.MethodPost, "https://localhost/twins/edge1/modules/mod2/methods", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || resp.ProtoMajor != 1 {
		t.Errorf("got %d over %s, want 400 over HTTP/1.1", resp.StatusCode, resp.Proto)
	}
}
