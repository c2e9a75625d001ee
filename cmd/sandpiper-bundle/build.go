package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// defaultEpoch is 1980-01-01, the first day that every archive format can say: the time of all files when nothing else is given.
const defaultEpoch = 315532800

// buildFlags are what build was asked for.
type buildFlags struct {
	out, name, version, key, goPackage, source, image string
	sequence, floor, minAgent                         uint64
	arch, variant, kernel                             string
	compatible, args, env, depends                    []string
	cwd, user, stop                                   string
	hostView, json                                    bool
	notBefore, expires                                string
	epoch                                             string
}

func buildCommand() *cobra.Command {
	var f buildFlags
	c := &cobra.Command{
		Use:   "build -o FILE.spb --name NAME --version V --sequence N [--arg ARG]… DIR | TAR | IMAGE",
		Short: "Build a bundle from a directory, a tar or an OCI image, and sign it when --key is given",
		Long: `Build a bundle from a directory, a tar file (plain, gzip or zstd), an OCI layout, or what docker save wrote. Its files become the
module's root (or /app, with --host-view).

The same files give the same bytes on every machine. Of a directory owners become 0:0, modes 0755 or 0644, every time
SOURCE_DATE_EPOCH; a tar and an image keep the owners, modes and times that stand in them. An image's own entry point, environment,
working directory, user and stop signal are the bundle's unless a flag says otherwise; of several images --image names one and
--arch its machine. Because the module does not run as root of its image, everything in it can be read by all; put no secrets in.
Python's .pyc files hold source times: compile them with --invalidation-mode unchecked-hash.`,
		Example: `  sandpiper-bundle build -o filter.spb --name filter --version 1.2.0 --sequence 12 --arg /bin/filter --key acme.key rootfs/
  sandpiper-bundle build -o blink.spb --name blink --version 1.0.0 --sequence 1 --host-view --arg /bin/sh --arg /app/blink.sh blink/
  sandpiper-bundle build -o mod.spb --name mod --version 1.0.0 --sequence 1 --go ./cmd/mod --arch arm64
  sandpiper-bundle build -o web.spb --name web --version 1.0.0 --sequence 1 --arch arm64 --image web:1.0 layout/`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 0 && f.goPackage == "") {
				return console.Usagef("%d arguments, want one directory, tar or image, or --go PACKAGE", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			dir := ""
			if len(args) == 1 {
				dir = args[0]
			}
			return f.build(c.Context(), dir, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	flags := c.Flags()
	flags.StringVarP(&f.out, "output", "o", "", "bundle file to write")
	flags.StringVar(&f.name, "name", "", "module name: a-z, digits and dashes")
	flags.StringVar(&f.version, "version", "", "version, for people")
	flags.Uint64Var(&f.sequence, "sequence", 0, "anti-rollback number, higher with every release")
	flags.StringArrayVar(&f.args, "arg", nil, "program and its arguments, once for each")
	flags.StringArrayVar(&f.env, "env", nil, "NAME=VALUE of the module's environment, once for each")
	flags.StringVar(&f.cwd, "cwd", "", "working directory of the module")
	flags.StringVar(&f.user, "user", "", "user[:group] the module runs as")
	flags.StringVar(&f.stop, "stop-signal", "", "signal that asks the module to end (default SIGTERM)")
	flags.BoolVar(&f.hostView, "host-view", false, "native module: the directory is /app in a read-only view of the host")
	flags.StringVar(&f.arch, "arch", "auto", "amd64, arm, arm64, riscv64 or any; auto asks the executables in it")
	flags.StringVar(&f.variant, "variant", "", "of arm: v6 or v7 (default v7)")
	flags.StringVar(&f.kernel, "min-kernel", "", "lowest Linux version, such as 5.10")
	flags.StringSliceVar(&f.compatible, "compatible", []string{bundle.AnyClass}, "device classes it is for")
	flags.StringArrayVar(&f.depends, "depends", nil, "NAME:MIN[:MAX] sequence of another module, once for each")
	flags.StringVar(&f.notBefore, "not-before", "", "not installed before this time (RFC 3339)")
	flags.StringVar(&f.expires, "expires", "", "not newly installed after this time (RFC 3339)")
	flags.Uint64Var(&f.floor, "floor", 0, "once accepted, never again below this sequence (default: this sequence)")
	flags.Uint64Var(&f.minAgent, "min-agent", 0, "lowest agent sequence that may install it")
	flags.StringVar(&f.source, "source", "", "what it was built from, for instance a commit")
	flags.StringVar(&f.epoch, "source-date-epoch", "", "time of all files, Unix seconds (default $SOURCE_DATE_EPOCH, else 1980-01-01)")
	flags.StringVar(&f.goPackage, "go", "", "build this Go package statically into the image; its program is the default --arg")
	flags.StringVar(&f.image, "image", "", "which of several images in a layout or an archive, by name or tag")
	flags.StringVar(&f.key, "key", "", "private key to sign with: a file, or pkcs11:…")
	flags.BoolVar(&f.json, "json", false, "print what was built as JSON")
	for _, name := range []string{"output", "name", "version", "sequence"} {
		must(c.MarkFlagRequired(name))
	}
	must(c.MarkFlagFilename("output", "spb"))
	must(c.RegisterFlagCompletionFunc("arch", cobra.FixedCompletions([]string{"auto", "any", "amd64", "arm", "arm64", "riscv64"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("variant", cobra.FixedCompletions([]string{"v6", "v7"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// built is what build prints.
type built struct {
	File   string        `json:"file"`
	Digest bundle.Digest `json:"digest"` // what a deployment's digest names
	Signed bool          `json:"signed"`
	Size   int64         `json:"size"`  // bytes of the bundle
	Image  int64         `json:"image"` // bytes of the image
	Files  int           `json:"files"`
}

func (f *buildFlags) build(ctx context.Context, dir string, stdout, stderr io.Writer) (err error) {
	m, epoch, err := f.manifest()
	if err != nil {
		return err
	}
	var key bundle.PrivateKey
	if f.key != "" {
		if key, err = openKey(ctx, f.key); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp(filepath.Dir(f.out), ".sandpiper-bundle-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if f.goPackage != "" {
		if info, serr := os.Stat(dir); dir != "" && (serr != nil || !info.IsDir() || oci.IsArchive(dir)) {
			return console.Usagef("--go takes a directory beside it, %q is none", dir)
		}
		if dir, err = f.compile(ctx, dir, work, &m); err != nil {
			return err
		}
	}
	if dir, err = f.input(dir); err != nil {
		return err
	}
	image, err := f.draw(ctx, dir, epoch, work, &m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	for _, note := range image.notes {
		fmt.Fprintf(stderr, "sandpiper-bundle: note: %s\n", note)
	}
	packed, payload, err := pack(ctx, image.File, work, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, payload.Close()) }()
	m.Image, m.Index = packed.Image, packed.Info
	envelope, err := seal(m, key)
	if err != nil {
		return err
	}
	n, err := writeBundle(f.out, envelope, packed.Index, payload)
	if err != nil {
		return err
	}
	b := built{File: f.out, Digest: envelope.Digest(), Signed: envelope.Signed(), Size: n, Image: int64(m.Image.Size), Files: image.files}
	if f.json {
		return console.JSON(stdout, b)
	}
	state := "signed by " + key.Public().ID().String()
	if !b.Signed {
		state = "NOT signed yet: run sandpiper-bundle sign"
	}
	_, err = fmt.Fprintf(stdout, "%s: %s %s, sequence %d, %s, %d files, image %s, bundle %s, %s\ndigest %s\n",
		b.File, m.Name, m.Version, m.Sequence, m.Platform.Arch, b.Files, console.Size(b.Image), console.Size(b.Size), state, b.Digest)
	return err
}

// seal signs, or makes the envelope that waits for a signature.
func seal(m bundle.Manifest, key bundle.PrivateKey) (bundle.Envelope, error) {
	if key.Public().IsZero() {
		return bundle.Unsigned(m)
	}
	return bundle.Sign(m, key)
}

// manifest is what the flags alone say.
func (f *buildFlags) manifest() (bundle.Manifest, time.Time, error) {
	text := f.epoch
	if text == "" {
		text = os.Getenv("SOURCE_DATE_EPOCH")
	}
	seconds := int64(defaultEpoch)
	if text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return bundle.Manifest{}, time.Time{}, console.Usagef("SOURCE_DATE_EPOCH %q, want Unix seconds", text)
		}
		seconds = n
	}
	m := bundle.Manifest{
		Schema: 1, Name: f.name, Version: f.version, Sequence: f.sequence, Kind: bundle.KindModule,
		Compatible: f.compatible, Floor: f.floor, MinAgent: f.minAgent,
		Build: &bundle.Build{Source: f.source, Epoch: uint64(seconds)},
	}
	if seconds == 0 && f.source == "" {
		m.Build = nil // an empty one has no encoding of its own
	}
	var err error
	if m.NotBefore, err = moment("not-before", f.notBefore); err != nil {
		return m, time.Time{}, err
	}
	if m.Expires, err = moment("expires", f.expires); err != nil {
		return m, time.Time{}, err
	}
	for _, text := range f.depends {
		d, err := dependency(text)
		if err != nil {
			return m, time.Time{}, err
		}
		m.Dependencies = append(m.Dependencies, d)
	}
	if m.Runtime, err = f.runtime(); err != nil {
		return m, time.Time{}, err
	}
	return m, time.Unix(seconds, 0).UTC(), nil
}

func (f *buildFlags) runtime() (*bundle.Runtime, error) {
	r := &bundle.Runtime{Args: f.args, Cwd: f.cwd, User: f.user, Stop: f.stop, HostView: f.hostView}
	for _, text := range f.env {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, console.Usagef("--env %q, want NAME=VALUE", text)
		}
		if r.Env == nil {
			r.Env = make(map[string]string)
		}
		r.Env[name] = value
	}
	if len(f.args) == 0 && f.goPackage == "" && r.Env == nil && f.cwd+f.user+f.stop == "" && !f.hostView {
		return nil, nil //nolint:nilnil // a bundle that leaves its start to the deployment, or to an image's config
	}
	return r, nil
}

func moment(flag, text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Unix() < 0 {
		return 0, console.Usagef("--%s %q, want a time such as 2030-01-31T00:00:00Z", flag, text)
	}
	return uint64(t.Unix()), nil
}

func dependency(text string) (bundle.Dependency, error) {
	parts := strings.Split(text, ":")
	d := bundle.Dependency{Name: parts[0]}
	var err error
	if len(parts) > 1 && len(parts) < 4 {
		if d.Min, err = strconv.ParseUint(parts[1], 10, 64); err == nil && len(parts) == 3 {
			d.Max, err = strconv.ParseUint(parts[2], 10, 64)
		}
		if err == nil {
			return d, nil
		}
	}
	return d, console.Usagef("--depends %q, want NAME:MIN or NAME:MIN:MAX", text)
}
