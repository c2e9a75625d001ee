package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

func (s *shared) imageCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "What is installed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := s.client().Images(cmd.Context())
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, images)
			}
			var rows [][]string
			for _, i := range images {
				rows = append(rows, []string{i.Name, cmp.Or(i.Version, "-"), i.Kind, shortDigest(i.Digest), console.Size(i.Size), ago(i.Installed, time.Now()), imageUse(i)})
			}
			return console.Table(s.out, "NAME VERSION KIND DIGEST SIZE INSTALLED USE", rows)
		},
	}
	pull := &cobra.Command{
		Use: "pull REFERENCE", Short: "Bring an image here: an OCI reference, or the URL of a bundle", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done := console.Progress(s.err, s.arriving(cmd.Context(), "pulling "+args[0]))
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
			done := console.Working(s.err, "loading "+args[0])
			i, err := s.client().Load(cmd.Context(), file, want, name)
			done()
			return s.printImage(i, err)
		},
	}
	load.Flags().StringVar(&want, "image", "", "which of several images in the archive: a tag or a name")
	load.Flags().StringVar(&name, "name", "", "reference to know it by, such as registry.example/app:1, beside its own")
	return console.Group("image", "Images on this device: bundles and OCI images", s.withJSON(list), s.withJSON(pull), s.withJSON(load), s.imageVerify(), s.imageGC(), s.imagePin("pin", true), s.imagePin("unpin", false))
}

// imageUse says what keeps an image.
func imageUse(i control.Image) string {
	var use []string
	for word, is := range map[string]bool{"mounted": i.Mounted, "active": i.Active && !i.Mounted, "previous": i.Previous, "pinned": i.Pinned, "kept": i.Kept && !i.Pinned} {
		if is {
			use = append(use, word)
		}
	}
	slices.Sort(use)
	return cmp.Or(strings.Join(use, ","), "-")
}

func (s *shared) imageVerify() *cobra.Command {
	var repair bool
	c := &cobra.Command{
		Use: "verify [IMAGE...]", ValidArgsFunction: s.imageNames, Short: "Read images whole and compare them with what was signed; all of them when none is named",
		Long: "Reads images from the disk and compares them with what was signed. An image is named as `image list` shows it,\n" +
			"or by the first digits of its digest. --repair fetches what is damaged from where it came.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				all, err := s.client().Images(cmd.Context())
				if err != nil {
					return err
				}
				for _, i := range all {
					args = append(args, i.Digest)
				}
			}
			docs, bad := []control.Image{}, 0
			for n, name := range args {
				done := console.Working(s.err, fmt.Sprintf("reading image %d of %d", n+1, len(args)))
				i, err := s.client().VerifyImage(cmd.Context(), name, repair)
				done()
				if err != nil {
					return err
				}
				docs = append(docs, i)
				state := "good"
				switch {
				case i.Damaged != "":
					state = i.Damaged
					bad++
				case i.Repaired > 0:
					state = fmt.Sprintf("repaired: chunks that were fetched again: %d", i.Repaired)
				}
				if !s.json {
					fmt.Fprintf(s.out, "%s %s %s: %s\n", i.Name, cmp.Or(i.Version, "-"), shortDigest(i.Digest), state)
				}
			}
			if s.json {
				if err := console.JSON(s.out, docs); err != nil {
					return err
				}
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d images are damaged: `sandpiper image verify --repair` fetches what is damaged; load an image again that came with an archive", bad, len(docs))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&repair, "repair", false, "fetch what is damaged from where it came")
	return s.withJSON(c)
}

func (s *shared) imageGC() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "gc", Short: "Remove images that no module needs, none needed before, and nobody pinned, pulled or loaded", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := s.client().CollectImages(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			if s.json {
				return console.JSON(s.out, images)
			}
			var sum int64
			for _, i := range images {
				fmt.Fprintf(s.out, "%s %s %s, %s\n", i.Name, cmp.Or(i.Version, "-"), shortDigest(i.Digest), console.Size(i.Size))
				sum += i.Size
			}
			verb := "removed"
			if dryRun {
				verb = "would be removed"
			}
			_, err = fmt.Fprintf(s.out, "%d images, %s %s\n", len(images), console.Size(sum), verb)
			return err
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	return s.withJSON(c)
}

func (s *shared) imagePin(verb string, pinned bool) *cobra.Command {
	short := "Keep an image whether a module needs it or not"
	if !pinned {
		short = "Leave an image that was pinned, pulled or loaded to `image gc` again"
	}
	return s.withJSON(&cobra.Command{
		Use: verb + " IMAGE", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: s.imageNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := s.client().PinImage(cmd.Context(), args[0], pinned)
			return s.printImage(i, err)
		},
	})
}

func (s *shared) printImage(i control.Image, err error) error {
	if err != nil {
		return err
	}
	if s.json {
		return console.JSON(s.out, i)
	}
	name := strings.Join(i.Names, " ")
	if name == "" {
		name = strings.TrimSpace(i.Name + " " + i.Version)
	}
	_, err = fmt.Fprintf(s.out, "%s %s, %s\n", name, i.Digest, console.Size(i.Size))
	return err
}

// imageNames completes how an image is named from what is installed.
func (s *shared) imageNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	images, err := s.client().Images(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, i := range images {
		names = append(names, cobra.CompletionWithDesc(shortDigest(i.Digest), strings.TrimSpace(i.Name+" "+i.Version)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// shortDigest is enough of a digest to tell images apart.
func shortDigest(d string) string {
	const digits = 12
	d = strings.TrimPrefix(d, "sha256:")
	return d[:min(digits, len(d))]
}
