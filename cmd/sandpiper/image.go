package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
)

func (s *shared) imageCommand() *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Images on this device: bundles and OCI images"}
	list := &cobra.Command{
		Use: "list", Short: "What is installed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := s.client().Images(cmd.Context())
			if err != nil {
				return err
			}
			if s.json {
				return printJSON(s.out, images)
			}
			var rows [][]string
			for _, i := range images {
				used := "-"
				if i.Mounted {
					used = "mounted"
				}
				rows = append(rows, []string{i.Name, cmp.Or(i.Version, "-"), i.Kind, shortDigest(i.Digest), byteCount(i.Size), ago(i.Installed, time.Now()), used})
			}
			return table(s.out, "NAME VERSION KIND DIGEST SIZE INSTALLED USE", rows)
		},
	}
	pull := &cobra.Command{
		Use: "pull REFERENCE", Short: "Bring an image here: an OCI reference, or the URL of a bundle", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done := working(s.err, "pulling "+args[0])
			i, err := s.client().Pull(cmd.Context(), args[0])
			done()
			return s.printImage(i, err)
		},
	}
	var want, name string
	load := &cobra.Command{
		Use: "load FILE|DIR", Short: "Install an image from an OCI layout or from what docker save wrote", Args: cobra.ExactArgs(1),
		Long: "Installs an image from an OCI layout (a directory, or a tar of it) or from what docker save wrote.\n" +
			"A deployment that names the image by one of its names then needs no registry.",
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			done := working(s.err, "loading "+args[0])
			i, err := s.client().Load(cmd.Context(), file, want, name)
			done()
			return s.printImage(i, err)
		},
	}
	load.Flags().StringVar(&want, "image", "", "which of several images in the archive: a tag or a name")
	load.Flags().StringVar(&name, "name", "", "reference to know it by, such as registry.example/app:1, beside its own")
	c.AddCommand(s.withJSON(list), s.withJSON(pull), s.withJSON(load))
	return c
}

func (s *shared) printImage(i control.Image, err error) error {
	if err != nil {
		return err
	}
	if s.json {
		return printJSON(s.out, i)
	}
	name := strings.Join(i.Names, " ")
	if name == "" {
		name = strings.TrimSpace(i.Name + " " + i.Version)
	}
	_, err = fmt.Fprintf(s.out, "%s %s, %s\n", name, i.Digest, byteCount(i.Size))
	return err
}

// shortDigest is enough of a digest to tell images apart.
func shortDigest(d string) string {
	const digits = 12
	d = strings.TrimPrefix(d, "sha256:")
	return d[:min(digits, len(d))]
}
