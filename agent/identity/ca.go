package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
)

// Every certificate made here is valid over all dates that X.509 can write, so no clock, wrong or right, ends one.
var (
	notBefore = time.Unix(0, 0).UTC()
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// leafKeyBits is what the workload API promises its callers (RSA, PKCS#8).
const leafKeyBits = 2048

const caKey = "identity/ca"

// CA is the device's own certificate authority: an ECDSA P-256 root, made at first start and kept for the life of the store.
// It signs the endpoint's server certificate and what modules ask for through the workload API. Safe for concurrent use.
type CA struct {
	hub, device string
	cert        *x509.Certificate
	key         crypto.Signer
	bundle      []byte
	server      *tls.Certificate

	making chan struct{} // holds one token: one RSA key is generated at a time, so modules cannot fill every core with it

	mu     sync.Mutex
	leaves map[string]*rsa.PrivateKey // by module; generated on first request, kept in memory only
}

// caDoc is the durable form of the CA. Version 1.
type caDoc struct {
	V           int    `json:"v"`
	Certificate string `json:"certificate"` // PEM
	Key         string `json:"key"`         // PEM, PKCS#8
}

// openCA loads the CA from docs, or makes it and waits until it is durable.
func openCA(ctx context.Context, docs Docs, hub, device, gateway string) (*CA, error) {
	var doc caDoc
	found, err := load(docs, caKey, &doc)
	if err != nil {
		return nil, err
	}
	if !found {
		if doc, err = makeCA(device); err != nil {
			return nil, fmt.Errorf("make device ca: %w", err)
		}
		if err := save(ctx, docs, caKey, doc); err != nil {
			return nil, err
		}
	}
	ca, err := doc.open()
	if err != nil {
		return nil, fmt.Errorf("device ca in the store: %w", err)
	}
	ca.hub, ca.device = hub, device
	if ca.server, err = ca.endpoint(gateway); err != nil {
		return nil, fmt.Errorf("issue endpoint certificate: %w", err)
	}
	return ca, nil
}

func makeCA(device string) (caDoc, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return caDoc{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: shorten("Sandpiper device CA " + device)},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return caDoc{}, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return caDoc{}, err
	}
	return caDoc{V: 1, Certificate: string(certPEM(der)), Key: text}, nil
}

func (d caDoc) open() (*CA, error) {
	if d.V != 1 {
		return nil, fmt.Errorf("version %d is not known here; was it written by a newer agent?", d.V)
	}
	pair, err := tls.X509KeyPair([]byte(d.Certificate), []byte(d.Key))
	if err != nil {
		return nil, err
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key cannot sign")
	}
	making := make(chan struct{}, 1)
	making <- struct{}{}
	return &CA{cert: pair.Leaf, key: signer, bundle: []byte(d.Certificate), making: making, leaves: map[string]*rsa.PrivateKey{}}, nil
}

// ServerCertificate is the certificate of the local endpoints: valid for the gateway name, localhost, 127.0.0.1 and ::1.
// Its ECDSA key is made afresh at each start and is never stored. The result is shared: do not change it.
func (ca *CA) ServerCertificate() *tls.Certificate { return ca.server }

// ServerTLS is a configuration for the local endpoints: TLS 1.2 or later with [CA.ServerCertificate].
func (ca *CA) ServerTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*ca.server}}
}

// TrustBundle is the PEM text that a module must trust to reach the local endpoints.
func (ca *CA) TrustBundle() []byte { return append([]byte(nil), ca.bundle...) }

// endpoint issues the certificate of the local listeners.
func (ca *CA) endpoint(gateway string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	names := names{dns: []string{"localhost"}, ips: []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}}
	names.add(gateway)
	der, err := ca.sign(gateway, names, x509.ExtKeyUsageServerAuth, key.Public())
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// IssueServer makes a server certificate for a module: subject and name commonName, and the module's own name beside it.
// chain is PEM, leaf first, then the device CA; key is PEM, PKCS#8.
func (ca *CA) IssueServer(ctx context.Context, commonName, module string) (chain []byte, key iothub.Secret, expires time.Time, err error) {
	if commonName == "" || len(commonName) > 253 {
		return nil, "", time.Time{}, fmt.Errorf("common name %.64q: want 1 to 253 characters", commonName)
	}
	var names names
	names.add(commonName)
	names.add(strings.TrimPrefix(module, "$"))
	return ca.issue(ctx, module, commonName, names, x509.ExtKeyUsageServerAuth)
}

// IssueIdentity makes a client certificate that names a module, in the form Microsoft's edge daemon gives it: the resource URI
// as text in a DNS name. chain and key are as with [CA.IssueServer].
func (ca *CA) IssueIdentity(ctx context.Context, module string) (chain []byte, key iothub.Secret, expires time.Time, err error) {
	uri := "URI: azureiot://" + iothub.ID{Device: ca.device, Module: module}.Resource(ca.hub)
	return ca.issue(ctx, module, module, names{dns: []string{uri}}, x509.ExtKeyUsageClientAuth)
}

func (ca *CA) issue(ctx context.Context, module, subject string, names names, usage x509.ExtKeyUsage) ([]byte, iothub.Secret, time.Time, error) {
	key, err := ca.leafKey(ctx, module)
	if err != nil {
		return nil, "", time.Time{}, fmt.Errorf("make key for %s: %w", module, err)
	}
	der, err := ca.sign(subject, names, usage, key.Public())
	if err != nil {
		return nil, "", time.Time{}, fmt.Errorf("sign certificate for %s: %w", module, err)
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, "", time.Time{}, err
	}
	return append(certPEM(der), ca.bundle...), iothub.Secret(text), notAfter, nil
}

// leafKey returns the RSA key of module's certificates, generating it on first use: seconds on a small board.
func (ca *CA) leafKey(ctx context.Context, module string) (*rsa.PrivateKey, error) {
	select {
	case <-ca.making:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { ca.making <- struct{}{} }()
	ca.mu.Lock()
	key := ca.leaves[module]
	ca.mu.Unlock()
	if key != nil {
		return key, nil
	}
	key, err := rsa.GenerateKey(rand.Reader, leafKeyBits)
	if err != nil {
		return nil, err
	}
	ca.mu.Lock()
	ca.leaves[module] = key
	ca.mu.Unlock()
	return key, nil
}

// forget drops the certificate key of a removed module.
func (ca *CA) forget(module string) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	delete(ca.leaves, module)
}

func (ca *CA) sign(subject string, names names, usage x509.ExtKeyUsage, key crypto.PublicKey) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: shorten(subject)},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
		BasicConstraintsValid: true,
		DNSNames:              names.dns,
		IPAddresses:           names.ips,
	}
	return x509.CreateCertificate(rand.Reader, template, ca.cert, key, ca.key)
}

// names are the alternative names of a certificate, each once.
type names struct {
	dns []string
	ips []net.IP
}

// add puts name where it belongs: an IP address among the addresses, everything else among the DNS names.
func (n *names) add(name string) {
	if ip := net.ParseIP(name); ip != nil {
		for _, have := range n.ips {
			if have.Equal(ip) {
				return
			}
		}
		n.ips = append(n.ips, ip)
		return
	}
	for _, have := range n.dns {
		if strings.EqualFold(have, name) {
			return
		}
	}
	n.dns = append(n.dns, name)
}

// shorten keeps a common name within the 64 characters that X.520 allows; the full name is among the alternative names.
func shorten(name string) string {
	if len(name) <= 64 {
		return name
	}
	return name[:64]
}

// serial is a positive random number of 126 bits.
func serial() *big.Int {
	raw := make([]byte, 16)
	rand.Read(raw) // never fails: it ends the process instead
	raw[0] = raw[0]&0x3f | 0x20
	return new(big.Int).SetBytes(raw)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key crypto.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}
