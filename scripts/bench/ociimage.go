package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ociRows measure OCI images: a Debian root file system of three layers that other tools made, see scripts/images.
func ociRows(s size) ([]row, error) {
	work, err := os.MkdirTemp("", "sandpiper-bench-oci-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	layout := filepath.Join(work, "layout")
	tools, why := ociFixture(layout)
	if why != "" {
		fmt.Fprintln(os.Stderr, "image: the OCI rows are left out:", why)
		return []row{
			{Name: "image.merge", Unit: "ms", Better: "lower", Peer: "umoci", Note: "peer missing"},
			{Name: "image.pull-rss", Unit: "bytes", Better: "lower", Peer: goal, Note: "peer missing"},
			{Name: "image.mount", Unit: "ms", Better: "lower", Peer: goal, Note: "peer missing"},
		}, nil
	}
	rows, err := contest{
		name: "image.merge", unit: "ms", better: "lower",
		ours: func() (float64, error) {
			f, err := puller("merge", layout, ociTag, filepath.Join(work, "merged"))
			return f.Ms, err
		},
		peers: []peer{{name: "umoci", note: "the same three layers: one image, synced, against files, not synced", run: func() (float64, error) {
			bundle := filepath.Join(work, "bundle")
			cmd := exec.Command(filepath.Join(tools, "usr/bin/umoci"), "unpack", "--image", layout+":"+ociTag, bundle)
			start := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return 0, fmt.Errorf("%w: %s", err, out)
			}
			took := float64(time.Since(start).Microseconds()) / 1000
			return took, os.RemoveAll(bundle)
		}}},
	}.measure(min(s.rounds, 5))
	if err != nil {
		return nil, err
	}
	more, err := ociPull(work, layout)
	return append(rows, more...), err
}

const ociTag = "layered"

// ociFixture makes the images, and says why it could not.
func ociFixture(layout string) (tools, why string) {
	script := filepath.Join("..", "images")
	if out, err := exec.Command(script, "--layout", layout).CombinedOutput(); err != nil {
		return "", strings.TrimSpace(string(out))
	}
	out, err := exec.Command(script, "--tools").Output()
	if err != nil {
		return "", err.Error()
	}
	return strings.TrimSpace(string(out)), ""
}

// figures are what puller prints.
type figures struct {
	Ms   float64
	Peak int64
	Size int64
	File string
}

func puller(args ...string) (figures, error) {
	var f figures
	out, err := exec.Command(filepath.Join("..", "..", "build", "bench-puller"), args...).Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return f, err
	}
	return f, json.Unmarshal(out, &f)
}

// ociPull pulls the image from a registry on loopback and mounts it.
func ociPull(work, layout string) ([]row, error) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveLayout(w, r, layout) }))
	defer server.Close()
	ca := filepath.Join(work, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		return nil, err
	}
	f, err := puller("pull", server.Listener.Addr().String(), ca, "debian:"+ociTag, work)
	if err != nil {
		return nil, err
	}
	at := filepath.Join(work, "at")
	if err := os.Mkdir(at, 0o755); err != nil {
		return nil, err
	}
	m, err := puller("mount", f.File, at)
	if err != nil {
		return nil, err
	}
	return []row{
		against("image.pull-rss", "bytes", "lower", float64(f.Peak), 32<<20, fmt.Sprintf("peak of a process that pulls, merges and installs an image of %d bytes in %.0f ms", f.Size, f.Ms)),
		against("image.mount", "ms", "lower", m.Ms, 1, "mount(2) of the merged image from its file, median of 21; the store reads and checks an image before it, once a boot"),
	}, nil
}

// serveLayout answers as a registry does, from an OCI layout.
func serveLayout(w http.ResponseWriter, r *http.Request, layout string) {
	_, what, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	kind, name, _ := strings.Cut(what, "/")
	if kind == "manifests" && !strings.HasPrefix(name, "sha256:") {
		raw, err := os.ReadFile(filepath.Join(layout, "index.json"))
		var index struct {
			Manifests []struct {
				MediaType, Digest string
				Annotations       map[string]string
			}
		}
		if err == nil {
			err = json.Unmarshal(raw, &index)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		for _, m := range index.Manifests {
			if m.Annotations["org.opencontainers.image.ref.name"] == name {
				w.Header().Set("Content-Type", m.MediaType)
				name = m.Digest
			}
		}
	}
	digits, ok := strings.CutPrefix(name, "sha256:")
	if !ok || strings.Contains(digits, "/") {
		http.NotFound(w, r)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	http.ServeFile(w, r, filepath.Join(layout, "blobs/sha256", digits))
}
