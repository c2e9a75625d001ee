package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

func extractCommand() *cobra.Command {
	var imageOnly bool
	var pubs []string
	c := &cobra.Command{
		Use:   "extract [--pub FILE]… BUNDLE DIR",
		Short: "Write a bundle's files into a new directory, to look at them; never as root",
		Long: `Write a bundle's files into a directory that is not there yet, or is empty. It refuses to run as root: files of somebody else's
making are only data to an ordinary user. Links are made as they stand and never followed. With --pub the signature is checked first.

With --image DIR becomes a file, the EROFS image itself, which any user may write.`,
		Args: files(2, "a bundle and a directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if os.Geteuid() == 0 && !imageOnly {
				return errors.New("extract refuses to run as root: run it as an ordinary user, or write the image alone with --image")
			}
			trusted, err := readPublic(pubs)
			if err != nil {
				return err
			}
			n, err := extract(c.Context(), args[0], args[1], imageOnly, trusted, c.ErrOrStderr())
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d entries\n", args[1], n)
			return err
		},
	}
	c.Flags().BoolVar(&imageOnly, "image", false, "write the EROFS image as one file")
	c.Flags().StringArrayVar(&pubs, "pub", nil, "trusted public key file, once for each (default: do not check the signature)")
	return c
}

func extract(ctx context.Context, path, to string, imageOnly bool, trusted []bundle.PublicKey, stderr io.Writer) (entries int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	image, err := os.CreateTemp(filepath.Dir(to), ".sandpiper-bundle-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, image.Close(), removeIfThere(image.Name())) }()
	bar := newProgress(stderr, "reading")
	read := bundle.ExtractUnverified
	if len(trusted) > 0 {
		read = func(w io.Writer, r io.Reader, progress func(done, total int64)) (bundle.Head, error) {
			return bundle.Extract(w, r, trusted, progress)
		}
	}
	head, err := read(image, &until{ctx, f}, bar.set)
	bar.end()
	if err != nil {
		return 0, err
	}
	if format := head.Manifest.Image.Format; format != bundle.FormatEROFS && !imageOnly {
		return 0, fmt.Errorf("the image is %v, only erofs is unpacked: use --image", format)
	}
	if imageOnly {
		return 1, errors.Join(image.Chmod(0o644), os.Rename(image.Name(), to))
	}
	tree, n, err := bundle.OpenImage(image, int64(head.Manifest.Image.Size))
	if err != nil {
		return 0, err
	}
	return n, unpack(ctx, tree, to)
}

// unpack writes a checked image's tree below a directory of its own, through a handle that no link leads out of.
func unpack(ctx context.Context, tree fs.FS, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if there, err := fs.ReadDir(root.FS(), "."); err != nil || len(there) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty: name a new directory", dir))
	}
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			return root.Mkdir(name, 0o755)
		case fs.ModeSymlink:
			target, err := fs.ReadLink(tree, name)
			if err != nil {
				return err
			}
			return root.Symlink(target, name)
		case 0:
			return unpackFile(root, tree, name, d)
		default:
			return nil // a device node is nothing to look at
		}
	})
}

func unpackFile(root *os.Root, tree fs.FS, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	from, err := tree.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644|info.Mode().Perm()&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
