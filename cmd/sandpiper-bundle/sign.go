package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

func signCommand() *cobra.Command {
	var keyName, envelopeFile string
	var detached bool
	c := &cobra.Command{
		Use:   "sign --key KEY BUNDLE",
		Short: "Sign a bundle in place; its manifest and payload stay as they are",
		Long: `Sign a bundle in place; its manifest and payload stay as they are.

Where the key's host shall not see the payload, only the envelope goes there and back:

  sandpiper-bundle inspect --envelope x.spe x.spb     # a few hundred bytes: the manifest
  sandpiper-bundle sign --detached --key KEY x.spe    # where the key is
  sandpiper-bundle sign --envelope x.spe x.spb        # back where the bundle is

KEY is a private key file, or a key in a PKCS #11 token as RFC 7512 names it, such as "pkcs11:token=release;object=acme": then
OpenSC's pkcs11-tool does the signing, with the module that module-path names (or $PKCS11_MODULE) and the PIN in $PKCS11_PIN.`,
		Args: files(1, "one bundle"),
		RunE: func(c *cobra.Command, args []string) error {
			if envelopeFile != "" {
				if keyName != "" || detached {
					return console.Usagef("--envelope puts in what is signed already: leave out --key and --detached")
				}
				digest, err := attach(args[0], envelopeFile)
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s: signed\ndigest %s\n", args[0], digest)
				return err
			}
			if keyName == "" {
				return console.Usagef("sign wants --key, or --envelope for what was signed elsewhere")
			}
			key, err := openKey(c.Context(), keyName)
			if err != nil {
				return err
			}
			sign := resign
			if detached {
				sign = signEnvelope
			}
			digest, err := sign(args[0], key)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: signed by %v\ndigest %s\n", args[0], key.Public().ID(), digest)
			return err
		},
	}
	c.Flags().StringVar(&keyName, "key", "", "private key file, or pkcs11:…")
	c.Flags().BoolVar(&detached, "detached", false, "the argument is an envelope, not a bundle")
	c.Flags().StringVar(&envelopeFile, "envelope", "", "put this signed envelope into the bundle")
	return c
}

// signEnvelope signs an envelope in a file of its own.
func signEnvelope(path string, key bundle.PrivateKey) (bundle.Digest, error) {
	e, err := readEnvelope(path)
	if err != nil {
		return bundle.Digest{}, err
	}
	m, err := bundle.ParseManifest(e.Payload)
	if err != nil {
		return bundle.Digest{}, err
	}
	signed, err := bundle.Sign(m, key)
	if err != nil {
		return bundle.Digest{}, err
	}
	_, err = writeFile(path, func(w io.Writer) error { _, err := w.Write(signed.Encode()); return err })
	return signed.Digest(), err
}

func readEnvelope(path string) (bundle.Envelope, error) {
	f, err := os.Open(path)
	if err != nil {
		return bundle.Envelope{}, err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, bundle.MaxEnvelope+1))
	if err != nil {
		return bundle.Envelope{}, err
	}
	return bundle.ParseEnvelope(raw)
}

// attach puts an envelope with the same manifest into a bundle.
func attach(path, envelopeFile string) (bundle.Digest, error) {
	e, err := readEnvelope(envelopeFile)
	if err != nil {
		return bundle.Digest{}, fmt.Errorf("%s: %w", envelopeFile, err)
	}
	if !e.Signed() {
		return bundle.Digest{}, fmt.Errorf("%s is not signed: use sign --detached first", envelopeFile)
	}
	return reseal(path, func(head bundle.Head) (bundle.Envelope, error) {
		if e.Digest() != head.Digest {
			return bundle.Envelope{}, fmt.Errorf("%s signs another manifest (%v, this is %v): take the envelope from this bundle", envelopeFile, e.Digest(), head.Digest)
		}
		return e, nil
	})
}

// resign signs a bundle's manifest.
func resign(path string, key bundle.PrivateKey) (bundle.Digest, error) {
	return reseal(path, func(head bundle.Head) (bundle.Envelope, error) { return bundle.Sign(head.Manifest, key) })
}

// reseal replaces the envelope. The chunks are not read again: their digests stand in the index, which is checked.
func reseal(path string, seal func(bundle.Head) (bundle.Envelope, error)) (bundle.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return bundle.Digest{}, err
	}
	defer func() { _ = f.Close() }()
	head, err := bundle.ReadHeadUnverified(f)
	if err != nil {
		return bundle.Digest{}, err
	}
	index, err := head.ReadIndex(f)
	if err != nil {
		return bundle.Digest{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return bundle.Digest{}, err
	}
	if info.Size() != head.Header.FileSize() {
		return bundle.Digest{}, fmt.Errorf("the file has %d bytes, its header says %d: build it again", info.Size(), head.Header.FileSize())
	}
	envelope, err := seal(head)
	if err != nil {
		return bundle.Digest{}, err
	}
	if envelope.Digest() != head.Digest {
		return bundle.Digest{}, errors.New("the manifest would change: build it again")
	}
	_, err = writeBundle(path, envelope, index, f)
	return head.Digest, err
}

func verifyCommand() *cobra.Command {
	var pubs []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify --pub FILE… BUNDLE",
		Short: "Check signature, every chunk and the image, as a device would",
		Args:  files(1, "one bundle"),
		RunE: func(c *cobra.Command, args []string) error {
			trusted, err := readPublic(pubs)
			if err != nil {
				return err
			}
			head, err := verify(c.Context(), args[0], trusted, c.ErrOrStderr())
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if asJSON {
				return console.JSON(c.OutOrStdout(), map[string]any{"file": args[0], "digest": head.Digest, "signer": head.Signer.ID(), "name": head.Manifest.Name, "version": head.Manifest.Version, "sequence": head.Manifest.Sequence})
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: good: %s %s, sequence %d, signed by %v\ndigest %s\n",
				args[0], head.Manifest.Name, head.Manifest.Version, head.Manifest.Sequence, head.Signer, head.Digest)
			return err
		},
	}
	c.Flags().StringArrayVar(&pubs, "pub", nil, "trusted public key file, once for each")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	must(c.MarkFlagRequired("pub"))
	return c
}

func verify(ctx context.Context, path string, trusted []bundle.PublicKey, stderr io.Writer) (head bundle.Head, err error) {
	f, err := os.Open(path)
	if err != nil {
		return bundle.Head{}, err
	}
	defer func() { _ = f.Close() }()
	image, err := os.CreateTemp("", "sandpiper-bundle-*")
	if err != nil {
		return bundle.Head{}, err
	}
	defer func() { err = errors.Join(err, image.Close(), os.Remove(image.Name())) }()
	bar := newProgress(stderr, "verifying")
	head, err = bundle.Extract(image, &until{ctx, f}, trusted, bar.set)
	bar.end()
	if err != nil {
		return bundle.Head{}, err
	}
	if head.Manifest.Image.Format == bundle.FormatEROFS {
		_, err = bundle.CheckImage(image, int64(head.Manifest.Image.Size))
	}
	return head, err
}

// sumFile is the SHA-256 of a whole file, for those who compare downloads.
func sumFile(path string) (bundle.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return bundle.Digest{}, err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return bundle.Digest{}, err
	}
	return bundle.Digest(sum.Sum(nil)), nil
}
