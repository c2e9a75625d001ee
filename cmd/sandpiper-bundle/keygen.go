package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

func keygenCommand() *cobra.Command {
	var alg, out, from string
	c := &cobra.Command{
		Use:   "keygen -o FILE",
		Short: "Make a signing key: FILE (private, mode 0600) and its .pub (public)",
		Long: "Make a signing key. FILE gets the private key (PKCS #8, mode 0600), and beside it a file ending in .pub the public one\n" +
			"(SubjectPublicKeyInfo), which goes onto the devices and into bundles.trusted_keys of their configuration. Neither is ever overwritten.\n\n" +
			"With --from nothing is made: FILE gets the public half of a key that is there, in a file or in a PKCS #11 token.",
		Args: files(0, "none"),
		RunE: func(c *cobra.Command, _ []string) error {
			if from != "" {
				return exportPublic(c.Context(), from, out, c.OutOrStdout())
			}
			a, err := bundle.ParseAlgorithm(alg)
			if err != nil {
				return console.Usage(err)
			}
			key, err := bundle.GenerateKey(a)
			if err != nil {
				return err
			}
			secret, err := key.Marshal()
			if err != nil {
				return err
			}
			public, err := key.Public().Marshal()
			if err != nil {
				return err
			}
			pub := publicName(out)
			if err := writeNew(out, secret, 0o600); err != nil {
				return err
			}
			if err := writeNew(pub, public, 0o644); err != nil {
				return errors.Join(err, os.Remove(out))
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s (private, keep it secret) and %s (public): %v key %v\n", out, pub, a, key.Public().ID())
			return err
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "private key file to write")
	c.Flags().StringVar(&alg, "alg", "ed25519", "ed25519, or es256 where keys come from hardware")
	c.Flags().StringVar(&from, "from", "", "write only the public half of this key: a private key file, or pkcs11:…")
	must(c.MarkFlagRequired("output"))
	must(c.RegisterFlagCompletionFunc("alg", cobra.FixedCompletions([]string{"ed25519", "es256"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// exportPublic writes the public key file of a key.
func exportPublic(ctx context.Context, name, out string, stdout io.Writer) error {
	key, err := openKey(ctx, name)
	if err != nil {
		return err
	}
	public, err := key.Public().Marshal()
	if err != nil {
		return err
	}
	if err := writeNew(out, public, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s (public): %v key %v\n", out, key.Public().Algorithm(), key.Public().ID())
	return err
}

// publicName is acme.pub for acme.key, and key.pub for key.
func publicName(private string) string { return strings.TrimSuffix(private, ".key") + ".pub" }

// writeNew makes a file that is not there yet, whole or not at all.
func writeNew(path string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and a key is never overwritten: choose another name", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	return nil
}

func readPrivate(path string) (bundle.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return bundle.PrivateKey{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return bundle.PrivateKey{}, fmt.Errorf("private key %s can be read by others (mode %v): chmod 600 it, and make a new one if others had access", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return bundle.PrivateKey{}, err
	}
	key, err := bundle.ParsePrivateKey(text)
	if err != nil {
		return bundle.PrivateKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func readPublic(paths []string) ([]bundle.PublicKey, error) {
	keys := make([]bundle.PublicKey, 0, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		key, err := bundle.ParsePublicKey(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		key.Name = path
		keys = append(keys, key)
	}
	return keys, nil
}

// must is for cobra's errors about flags that this program names wrongly.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
