package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// fileTree is what becomes an image: a directory's tree, or the image itself. No link in it is followed.
type fileTree interface {
	fs.FS
	Lstat(name string) (fs.FileInfo, error)
}

// drawn is an image that was written, before it is packed.
type drawn struct {
	*os.File

	files int
	notes []string // for the builder's eyes
}

// largest bounds the plain bytes of a tar or a layer: what an image may have.
const largest = 64 << 30

// input says what dir, which may be anything of the user's, is.
func (f *buildFlags) input(dir string) (string, error) {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", err
	case f.image != "" && !oci.IsArchive(dir):
		return "", console.Usagef("--image %q, but %s is no OCI layout and not what docker save writes", f.image, dir)
	case !info.IsDir() && !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is neither a directory nor a file", dir)
	}
	return dir, nil
}

// draw writes the image of a directory, a tar or an OCI image into work, and completes the manifest with what they say.
func (f *buildFlags) draw(ctx context.Context, from string, epoch time.Time, work string, m *bundle.Manifest) (*drawn, error) {
	file, err := os.Create(filepath.Join(work, "image"))
	if err != nil {
		return nil, err
	}
	d := &drawn{File: file}
	switch info, serr := os.Stat(from); {
	case serr != nil:
		err = serr
	case oci.IsArchive(from):
		err = f.drawOCI(ctx, d, from, m)
	case info.IsDir():
		err = f.drawTree(d, from, epoch, m)
	default:
		err = f.drawTar(ctx, d, from, m)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return d, nil
}

func (f *buildFlags) drawTree(d *drawn, dir string, epoch time.Time, m *bundle.Manifest) (err error) {
	tree, err := bundle.OpenTree(dir, epoch)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	for _, name := range tree.Stripped {
		d.notes = append(d.notes, name+" loses its setuid or setgid bit, which a sandbox ignores")
	}
	d.files = tree.Files
	if err := f.complete(m, treeFiles{tree}); err != nil {
		return err
	}
	return tree.WriteImage(d.File)
}

type treeFiles struct{ *bundle.Tree }

func (t treeFiles) Lstat(name string) (fs.FileInfo, error) { return t.Stat(name) }

// drawTar takes a tar as the one layer of an image.
func (f *buildFlags) drawTar(ctx context.Context, d *drawn, name string, m *bundle.Manifest) error {
	l, err := oci.TarLayer(ctx, name, largest)
	if err != nil {
		return err
	}
	if err := merge(ctx, d, []oci.Layer{l}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return f.check(d, m)
}

// drawOCI merges the layers of an image, and takes how it starts from its config.
func (f *buildFlags) drawOCI(ctx context.Context, d *drawn, where string, m *bundle.Manifest) error {
	a, err := oci.OpenArchive(where)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	img, err := f.choose(a)
	if err != nil {
		return err
	}
	if err := merge(ctx, d, img.Layers); err != nil {
		return err
	}
	if f.arch == "auto" {
		f.arch = img.Config.Platform.Arch
		if f.arch == "arm" && f.variant == "" {
			f.variant = img.Config.Platform.Variant
		}
	}
	if m.Runtime, err = fromConfig(m.Runtime, img.Config); err != nil {
		return err
	}
	for what, list := range map[string][]string{"ports": img.Config.Ports, "volumes": img.Config.Volumes} {
		if len(list) > 0 {
			d.notes = append(d.notes, fmt.Sprintf("the image's %s (%s) are not in a bundle: the deployment says what its module has of them", what, strings.Join(list, ", ")))
		}
	}
	if img.Config.Health != nil {
		d.notes = append(d.notes, "the image's HEALTHCHECK is not in a bundle: the deployment says how its module is checked")
	}
	slices.Sort(d.notes)
	return f.check(d, m)
}

// choose finds the image for --arch, or the only one there is: which it is must not depend on the machine that builds.
func (f *buildFlags) choose(a *oci.Archive) (*oci.Image, error) {
	const newest = 7 // of 32-bit ARM
	arches := []string{f.arch}
	if f.arch == "auto" || f.arch == bundle.AnyArch {
		arches = []string{"amd64", "arm", "arm64", "riscv64"}
	}
	variant := newest
	if f.variant == "v6" {
		variant = 6
	}
	var img *oci.Image
	var there []string
	var why error
	for _, arch := range arches {
		found, err := a.Image(f.image, oci.Machine{Arch: []string{arch}, Variant: variant}, largest)
		if err != nil {
			why = err
			continue
		}
		img, there = found, append(there, arch)
	}
	switch {
	case img == nil:
		return nil, why
	case len(there) > 1:
		return nil, fmt.Errorf("it has images for %s: say --arch", strings.Join(there, " and "))
	}
	return img, nil
}

// merge writes the image of some layers.
func merge(ctx context.Context, d *drawn, layers []oci.Layer) error {
	merged, err := oci.Merge(ctx, layers, d.File, oci.Limits{Bytes: largest}, nil)
	if err != nil {
		return err
	}
	d.files = merged.Entries
	if s := merged.Stripped; s.SetID > 0 {
		d.notes = append(d.notes, fmt.Sprintf("%d files lose their setuid or setgid bit, which a sandbox ignores", s.SetID))
	}
	if s := merged.Stripped; s.Xattrs > 0 {
		d.notes = append(d.notes, fmt.Sprintf("%d extended attributes that are not the user's are left out", s.Xattrs))
	}
	return nil
}

// check looks for the platform and the program in an image that was merged.
func (f *buildFlags) check(d *drawn, m *bundle.Manifest) error {
	info, err := d.Stat()
	if err != nil {
		return err
	}
	fsys, _, err := bundle.OpenImage(d.File, info.Size())
	if err != nil {
		return err
	}
	tree, ok := fsys.(fileTree)
	if !ok {
		return errors.New("the image's reader does not tell links from files")
	}
	for _, index := range []string{"oci-layout", "manifest.json"} {
		if _, err := tree.Lstat(index); err == nil && m.Runtime == nil {
			return fmt.Errorf("%s is in it: an image in a compressed archive is not a root; decompress the archive first", index)
		}
	}
	return f.complete(m, tree)
}

// complete fills the manifest with what only the files tell.
func (f *buildFlags) complete(m *bundle.Manifest, tree fileTree) (err error) {
	if m.Platform, err = f.platform(tree); err != nil || m.Runtime == nil {
		return err
	}
	if len(m.Runtime.Args) == 0 {
		return console.Usagef("--env, --cwd, --user, --stop-signal and --host-view need --arg")
	}
	return programThere(tree, *m.Runtime)
}

// fromConfig is how the image starts, under what the flags say.
func fromConfig(said *bundle.Runtime, c oci.Config) (*bundle.Runtime, error) {
	r := bundle.Runtime{Args: append(slices.Clone(c.Entrypoint), c.Cmd...), Cwd: c.Cwd, User: c.User, Stop: c.Stop}
	for _, text := range c.Env {
		name, value, _ := strings.Cut(text, "=")
		if r.Env == nil {
			r.Env = make(map[string]string)
		}
		r.Env[name] = value
	}
	var over bundle.Runtime
	if said != nil {
		over = *said
	}
	if len(over.Args) > 0 {
		r.Args = over.Args
	}
	for name, value := range over.Env {
		if r.Env == nil {
			r.Env = make(map[string]string)
		}
		r.Env[name] = value
	}
	r.HostView = over.HostView
	for to, from := range map[*string]string{&r.Cwd: over.Cwd, &r.User: over.User, &r.Stop: over.Stop} {
		if from != "" {
			*to = from
		}
	}
	if len(r.Args) == 0 {
		return nil, console.Usagef("the image has neither an entry point nor a command: say --arg")
	}
	return &r, nil
}
