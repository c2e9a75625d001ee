package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

func signCommand() *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "sign --key FILE BUNDLE",
		Short: "Sign a bundle in place; its manifest and payload stay as they are",
		Args:  files(1, "one bundle"),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := readPrivate(keyFile)
			if err != nil {
				return err
			}
			digest, err := resign(args[0], key)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: signed by %v\ndigest %s\n", args[0], key.Public().ID(), digest)
			return err
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "private key file")
	must(c.MarkFlagRequired("key"))
	return c
}

// resign replaces the envelope. The chunks are not read again: their digests stand in the index, which is checked.
func resign(path string, key bundle.PrivateKey) (bundle.Digest, error) {
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
	envelope, err := bundle.Sign(head.Manifest, key)
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
			head, err := verify(args[0], trusted, c.ErrOrStderr())
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), map[string]any{"file": args[0], "digest": head.Digest, "signer": head.Signer.ID(), "name": head.Manifest.Name, "version": head.Manifest.Version, "sequence": head.Manifest.Sequence})
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

func verify(path string, trusted []bundle.PublicKey, stderr io.Writer) (head bundle.Head, err error) {
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
	head, err = bundle.Extract(image, f, trusted, bar.set)
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
