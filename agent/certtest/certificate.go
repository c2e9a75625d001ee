// Package certtest makes certificates for tests, so that none lies in the tree and none expires.
//
// There is one noun, the pair that [New] makes: it signs itself, and the pool beside it trusts it and nothing else. It owns no goroutine.
//
// The trap: who asks for no names gets a certificate that no client accepts of a server; it is for devices that prove themselves by one.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// For ever: no clock of a test, real or virtual, is outside.
var (
	begin = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	end   = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
)

// New makes a certificate for a server's name, "" for none, that signs itself and holds for ever.
func New(tb testing.TB, name string) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	return Between(tb, name, begin, end)
}

// Between is [New] of one that holds from a time until another.
func Between(tb testing.TB, name string, from, until time.Time) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if name != "" {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}
