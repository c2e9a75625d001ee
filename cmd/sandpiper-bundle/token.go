package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// openKey opens a private key: a file, or a key that never leaves its token.
func openKey(ctx context.Context, name string) (bundle.PrivateKey, error) {
	if !strings.HasPrefix(name, "pkcs11:") {
		return readPrivate(name)
	}
	t, err := parseToken(name)
	if err != nil {
		return bundle.PrivateKey{}, err
	}
	if err := t.load(ctx); err != nil {
		return bundle.PrivateKey{}, fmt.Errorf("key %s: %w", name, err)
	}
	return bundle.NewPrivateKey(t)
}

// token is a key in a PKCS #11 token, reached through OpenSC's pkcs11-tool: this program stays free of C.
type token struct {
	module string // the token's library
	label  string // of the token; "" = the first
	object string // label of the key
	id     string // of the key, in hexadecimal
	pin    bool   // PKCS11_PIN is set
	public crypto.PublicKey
	ctx    context.Context //nolint:containedctx // of the command, for the signer interface, which has none
}

const (
	pinVariable    = "PKCS11_PIN"
	moduleVariable = "PKCS11_MODULE"
	tokenTool      = "pkcs11-tool"
)

// parseToken reads an RFC 7512 URI: token, object, id, and module-path of the query. A PIN in it would stand in shell histories.
func parseToken(uri string) (*token, error) {
	path, query, _ := strings.Cut(strings.TrimPrefix(uri, "pkcs11:"), "?")
	_, pin := os.LookupEnv(pinVariable)
	t := &token{module: os.Getenv(moduleVariable), pin: pin}
	for _, part := range append(strings.Split(path, ";"), strings.Split(query, "&")...) {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		value, err := url.PathUnescape(value)
		if err != nil {
			return nil, console.Usagef("--key: %s of the pkcs11: URI is not percent-encoded", name)
		}
		switch name {
		case "token":
			t.label = value
		case "object":
			t.object = value
		case "id":
			t.id = fmt.Sprintf("%x", value)
		case "type":
		case "module-path":
			t.module = value
		case "pin-value", "pin-source":
			return nil, console.Usagef("--key: no PIN in the pkcs11: URI, where others can see it: set $%s", pinVariable)
		default:
			return nil, console.Usagef("--key: unknown part %q of the pkcs11: URI, want token, object, id or module-path", name)
		}
	}
	switch {
	case t.object == "" && t.id == "":
		return nil, console.Usagef("--key: the pkcs11: URI names no key, want object=LABEL or id=…")
	case t.module == "":
		return nil, console.Usagef("--key: the token's library is not known: add ?module-path=/usr/lib/…/libsofthsm2.so, or set $%s", moduleVariable)
	}
	return t, nil
}

// load reads the public key.
func (t *token) load(ctx context.Context) error {
	t.ctx = ctx
	der, err := t.run(nil, "--read-object", "--type", "pubkey")
	if err != nil {
		return err
	}
	if t.public, err = x509.ParsePKIXPublicKey(der); err != nil {
		return fmt.Errorf("public key in the token: %w", err)
	}
	return nil
}

// Public returns the public half.
func (t *token) Public() crypto.PublicKey { return t.public }

// Sign has the token sign a digest (ECDSA) or a message (Ed25519).
func (t *token) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	if _, ok := t.public.(*ecdsa.PublicKey); !ok {
		return t.run(digest, "--sign", "--mechanism", "EDDSA")
	}
	raw, err := t.run(digest, "--sign", "--mechanism", "ECDSA")
	if err != nil {
		return nil, err
	}
	half := len(raw) / 2 // r and s, as PKCS #11 has them; Go's signers answer in ASN.1
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}

// run calls pkcs11-tool on the key, input and output in files of a directory of its own.
func (t *token) run(input []byte, args ...string) (output []byte, err error) {
	dir, err := os.MkdirTemp("", "sandpiper-bundle-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	out := filepath.Join(dir, "out")
	args = append(args, "--module", t.module, "--output-file", out)
	for flag, value := range map[string]string{"--token-label": t.label, "--label": t.object, "--id": t.id} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	if t.pin {
		args = append(args, "--login", "--pin", "env:"+pinVariable)
	}
	if input != nil {
		in := filepath.Join(dir, "in")
		if err := os.WriteFile(in, input, 0o600); err != nil {
			return nil, err
		}
		args = append(args, "--input-file", in)
	}
	said, err := exec.CommandContext(t.ctx, tokenTool, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%s is not installed: install OpenSC (Debian's package opensc)", tokenTool)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", tokenTool, err, bytes.TrimSpace(said))
	}
	return os.ReadFile(out)
}
