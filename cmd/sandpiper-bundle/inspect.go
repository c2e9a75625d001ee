package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// inspected is what inspect prints. Nothing in it was checked against a key.
type inspected struct {
	File      string          `json:"file"`
	Size      int64           `json:"size"`
	FileSum   bundle.Digest   `json:"file_sha256"`
	Digest    bundle.Digest   `json:"digest"`
	Signed    bool            `json:"signed"`
	Algorithm string          `json:"algorithm,omitempty"`
	KeyID     string          `json:"key_id,omitempty"`
	Chunks    int             `json:"chunks"`
	Manifest  bundle.Manifest `json:"manifest"`
	envelope  bundle.Envelope
}

func inspectCommand() *cobra.Command {
	var asJSON bool
	var envelope string
	c := &cobra.Command{
		Use:   "inspect BUNDLE",
		Short: "Show what a bundle says of itself, without checking its signature",
		Args:  files(1, "one bundle"),
		RunE: func(c *cobra.Command, args []string) error {
			i, err := inspect(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if envelope != "" {
				if _, err := writeFile(envelope, func(w io.Writer) error { _, err := w.Write(i.envelope.Encode()); return err }); err != nil {
					return err
				}
			}
			if asJSON {
				return console.JSON(c.OutOrStdout(), i)
			}
			return i.print(c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	c.Flags().StringVar(&envelope, "envelope", "", "also write the envelope to this file, for sign --detached")
	return c
}

func inspect(path string) (inspected, error) {
	f, err := os.Open(path)
	if err != nil {
		return inspected{}, err
	}
	defer func() { _ = f.Close() }()
	head, err := bundle.ReadHeadUnverified(f)
	if err != nil {
		return inspected{}, err
	}
	index, err := head.ReadIndex(f)
	if err != nil {
		return inspected{}, err
	}
	sum, err := sumFile(path)
	if err != nil {
		return inspected{}, err
	}
	i := inspected{
		File: path, Size: head.Header.FileSize(), FileSum: sum, Digest: head.Digest, Signed: head.Envelope.Signed(),
		Chunks: len(index), Manifest: head.Manifest, envelope: head.Envelope,
	}
	if id, alg, ok := head.Envelope.Signer(); ok {
		i.KeyID, i.Algorithm = id.String(), alg.String()
	}
	return i, nil
}

func (i inspected) print(w io.Writer) error {
	m := i.Manifest
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("module", "%s %s, sequence %d", m.Name, m.Version, m.Sequence)
	row("digest", "%v", i.Digest)
	if i.Signed {
		row("signature", "%s by key %s, not checked here: use verify", i.Algorithm, i.KeyID)
	} else {
		row("signature", "none: use sign")
	}
	row("platform", "%s", strings.TrimSpace(fmt.Sprintf("%s %s %s", m.Platform.OS, m.Platform.Arch, m.Platform.Variant)))
	if m.Platform.Kernel != "" {
		row("kernel", "%s or newer", m.Platform.Kernel)
	}
	row("classes", "%s", strings.Join(m.Compatible, " "))
	if r := m.Runtime; r != nil {
		row("args", "%q", r.Args)
		for _, name := range slices.Sorted(maps.Keys(r.Env)) {
			row("env", "%s=%q", name, r.Env[name])
		}
		for _, pair := range [][2]string{{"cwd", r.Cwd}, {"user", r.User}, {"stop signal", r.Stop}} {
			if pair[1] != "" {
				row(pair[0], "%s", pair[1])
			}
		}
		root := "the image"
		if r.HostView {
			root = "a read-only view of the host, the image at /app"
		}
		row("root", "%s", root)
	}
	for _, d := range m.Dependencies {
		row("depends on", "%s from sequence %d", d.Name, d.Min)
	}
	if m.NotBefore != 0 {
		row("not before", "%s", when(m.NotBefore))
	}
	if m.Expires != 0 {
		row("expires", "%s", when(m.Expires))
	}
	if m.Floor != 0 {
		row("floor", "%d", m.Floor)
	}
	if m.Build != nil {
		row("built", "%s", strings.TrimSpace("times "+when(m.Build.Epoch)+" "+m.Build.Source))
	}
	row("image", "%v, %s, %v", m.Image.Format, console.Size(int64(m.Image.Size)), m.Image.Digest)
	row("fs-verity", "%v", m.Image.Verity)
	row("payload", "%s in %d chunks", console.Size(int64(m.Index.Payload)), i.Chunks)
	row("file", "%s, %v", console.Size(i.Size), i.FileSum)
	return t.Flush()
}

func when(unix uint64) string {
	const latest = 253402300799 // the last second of the year 9999
	return time.Unix(int64(min(unix, latest)), 0).UTC().Format(time.RFC3339)
}
