package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// made is what delta prints.
type made struct {
	File string        `json:"file"`
	From bundle.Digest `json:"from"` // images
	To   bundle.Digest `json:"to"`
	Size int64         `json:"size"` // bytes
	Full uint64        `json:"full"` // bytes of the new bundle's payload, which it stands for
}

func deltaCommand() *cobra.Command {
	var out string
	var asJSON bool
	c := &cobra.Command{
		Use:   "delta [-o FILE.spd] OLD.spb NEW.spb",
		Short: "Make the file that turns an old bundle's image into a new one's",
		Long: `Make the file that turns an old bundle's image into a new one's. Put it beside the new bundle on the web server, under the
name that it gets here: a device that has the old image asks for it before it fetches chunks.

It is not signed: the device compares what it makes with the signed index of the new bundle. Comparing takes both
images in memory, and fifteen times what is in the old one alone.`,
		Args: files(2, "an old and a new bundle"),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := delta(c.Context(), args[0], args[1], out, c.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return console.JSON(c.OutOrStdout(), m)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s instead of %s\n", m.File, console.Size(m.Size), console.Size(int64(m.Full)))
			return err
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "file or directory to write to (default: the devices' name for it, beside NEW.spb)")
	c.Flags().BoolVar(&asJSON, "json", false, "print what was made as JSON")
	must(c.MarkFlagFilename("output", "spd"))
	return c
}

func delta(ctx context.Context, oldPath, newPath, out string, stderr io.Writer) (made, error) {
	old, oldImage, err := imageOf(ctx, oldPath, stderr)
	if err != nil {
		return made{}, fmt.Errorf("%s: %w", oldPath, err)
	}
	next, nextImage, err := imageOf(ctx, newPath, stderr)
	if err != nil {
		return made{}, fmt.Errorf("%s: %w", newPath, err)
	}
	from, to := old.Manifest.Image, next.Manifest.Image
	if from.Digest == to.Digest {
		return made{}, fmt.Errorf("%s and %s hold the same image: a device that has the one needs no byte of the other", oldPath, newPath)
	}
	index, err := indexOf(newPath)
	if err != nil {
		return made{}, fmt.Errorf("%s: %w", newPath, err)
	}
	name := bundle.DeltaName(from.Digest, to.Digest)
	if out == "" {
		out = filepath.Join(filepath.Dir(newPath), name)
	} else if info, err := os.Stat(out); err == nil && info.IsDir() {
		out = filepath.Join(out, name)
	}
	h := bundle.DeltaHeader{From: from.Digest, To: to.Digest, Size: to.Size}
	n, err := writeFile(out, func(w io.Writer) error {
		if err := bundle.WriteDelta(w, h, oldImage, nextImage, index); err != nil {
			return err
		}
		return ctx.Err()
	})
	if err != nil {
		return made{}, err
	}
	return made{File: out, From: from.Digest, To: to.Digest, Size: n, Full: next.Manifest.Index.Payload}, proveDelta(out, h, oldImage, nextImage, next.Manifest)
}

// proveDelta applies what was written, as a device will.
func proveDelta(path string, h bundle.DeltaHeader, old, next []byte, m bundle.Manifest) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	c := &comparer{want: next}
	stored, err := bundle.ApplyDelta(c, f, bytes.NewReader(old), int64(len(old)), h)
	if err == nil {
		_, err = bundle.MakeIndex(bytes.NewReader(next), stored, m)
	}
	if err != nil {
		return fmt.Errorf("%s does not make the new image, which is a fault of this tool: %w", path, err)
	}
	return nil
}

// indexOf reads a bundle's index.
func indexOf(path string) (bundle.Index, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	head, err := bundle.ReadHeadUnverified(f)
	if err != nil {
		return nil, err
	}
	return head.ReadIndex(f)
}

// comparer takes only the bytes that it wants.
type comparer struct{ want []byte }

func (c *comparer) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(c.want, p) {
		return 0, errors.New("other bytes")
	}
	c.want = c.want[len(p):]
	return len(p), nil
}

// imageOf reads a bundle's whole image into memory. Its chunks are checked, its signature is not: the result is not trusted either.
func imageOf(ctx context.Context, path string, stderr io.Writer) (bundle.Head, []byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return bundle.Head{}, nil, err
	}
	defer func() { _ = f.Close() }()
	bar := newProgress(stderr, "reading "+filepath.Base(path))
	defer bar.end()
	var image bytes.Buffer
	head, err := bundle.ExtractUnverified(&image, &until{ctx, f}, bar.set)
	return head, image.Bytes(), err
}
