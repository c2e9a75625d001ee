package identity

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

func chain(t *testing.T, text []byte) []*x509.Certificate {
	t.Helper()
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatalf("parse certificate: %v", err)
		}
		out = append(out, cert)
	}
	return out
}

func TestTheEndpointIsTrustedWhateverTheClockShows(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b.CA().TrustBundle()) {
		t.Fatal("trust bundle is not PEM")
	}
	leaf := b.CA().ServerCertificate().Leaf
	for name, at := range map[string]time.Time{
		"first second of 1970": time.Unix(1, 0), "today": testNow, "2100": time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		"last day of 9999": time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
	} {
		for _, host := range []string{"gw01", "GW01", "localhost", "127.0.0.1", "::1"} {
			t.Run(name+" "+host, func(t *testing.T) {
				t.Parallel()
				if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: at}); err != nil {
					t.Errorf("verify: %v", err)
				}
			})
		}
	}
}

func TestTheCAIsMadeOnce(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	if got, want := string(b.again(t, nil).CA().TrustBundle()), string(b.CA().TrustBundle()); got != want {
		t.Errorf("trust bundle after a restart: got\n%s\nwant\n%s", got, want)
	}
}

func TestAGatewayThatIsAnAddressIsAnAddressInTheCertificate(t *testing.T) {
	t.Parallel()
	b := open(t, func(c *Config) { c.Gateway = "192.0.2.7" })
	if err := b.CA().ServerCertificate().Leaf.VerifyHostname("192.0.2.7"); err != nil {
		t.Error(err)
	}
}

func TestModulesReachTheEndpointOverTLS(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	l, err := tls.Listen("tcp", "127.0.0.1:0", b.CA().ServerTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.CA().TrustBundle())
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "gw01", MaxVersion: version})
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = c.Close()
	}
}

func TestIssuedCertificatesHaveTheShapeOfTheWorkloadAPI(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	ca := b.CA()
	tests := map[string]struct {
		issue func(context.Context) ([]byte, iothub.Secret, time.Time, error)
		cn    string
		dns   []string
		ips   int
		usage x509.ExtKeyUsage
	}{
		"server by name": {
			func(ctx context.Context) ([]byte, iothub.Secret, time.Time, error) {
				return ca.IssueServer(ctx, "gw01", "$edgeHub")
			},
			"gw01", []string{"gw01", "edgeHub"}, 0, x509.ExtKeyUsageServerAuth,
		},
		"server by address": {
			func(ctx context.Context) ([]byte, iothub.Secret, time.Time, error) {
				return ca.IssueServer(ctx, "192.0.2.7", "filter")
			},
			"192.0.2.7", []string{"filter"}, 1, x509.ExtKeyUsageServerAuth,
		},
		"identity": {
			func(ctx context.Context) ([]byte, iothub.Secret, time.Time, error) {
				return ca.IssueIdentity(ctx, "filter")
			},
			"filter", []string{"URI: azureiot://hub.example.net/devices/edge1/modules/filter"}, 0, x509.ExtKeyUsageClientAuth,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, secret, expires, err := tc.issue(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if want := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC); !expires.Equal(want) {
				t.Errorf("expires: got %v, want %v", expires, want)
			}
			certs := chain(t, text)
			if len(certs) != 2 || !certs[1].IsCA {
				t.Fatalf("chain: got %d certificates, want the leaf and the device CA", len(certs))
			}
			leaf := certs[0]
			if err := leaf.CheckSignatureFrom(certs[1]); err != nil {
				t.Errorf("signature: %v", err)
			}
			if leaf.Subject.CommonName != tc.cn || !slices.Equal(leaf.DNSNames, tc.dns) || len(leaf.IPAddresses) != tc.ips {
				t.Errorf("names: got %q %q %v, want %q %q and %d addresses", leaf.Subject.CommonName, leaf.DNSNames, leaf.IPAddresses, tc.cn, tc.dns, tc.ips)
			}
			if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != tc.usage {
				t.Errorf("usage: got %v, want %v", leaf.ExtKeyUsage, tc.usage)
			}
			block, _ := pem.Decode([]byte(secret.Reveal()))
			if block == nil || block.Type != "PRIVATE KEY" {
				t.Fatal("private key is not PKCS#8 PEM")
			}
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			private, ok := key.(*rsa.PrivateKey)
			if !ok || private.N.BitLen() != 2048 || !private.PublicKey.Equal(leaf.PublicKey) {
				t.Errorf("key: got %T, want the certificate's RSA-2048", key)
			}
		})
	}
}

func TestACommonNameOutOfBoundsIsRefused(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	for name, cn := range map[string]string{"empty": "", "too long": string(make([]byte, 254))} {
		if _, _, _, err := b.CA().IssueServer(t.Context(), cn, "filter"); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}

func TestWaitingForAKeyEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	<-b.CA().making
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err := b.CA().IssueIdentity(ctx, "filter"); err == nil {
		t.Error("got nil, want the context's error")
	}
	b.CA().making <- struct{}{}
}
