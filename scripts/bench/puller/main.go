// Command puller does with an OCI image what the device does, in a process that holds nothing else, and prints how long it took and the
// most memory it had as JSON.
//
//	puller merge LAYOUT TAG FILE         layers to one image, on the disk
//	puller pull HOST CA REPOSITORY DIR   from a registry to an installed image
//	puller mount FILE DIR                the kernel's mount of an image, the median of 21
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

type figures struct {
	Ms   float64 `json:"ms"`
	Peak int64   `json:"peak"` // bytes of VmHWM
	Size int64   `json:"size"` // bytes of the image
	File string  `json:"file,omitempty"`
}

func main() {
	f, err := run(os.Args[1:])
	if err == nil {
		f.Peak, err = peak()
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "puller:", err)
		os.Exit(1)
	}
}

func run(args []string) (figures, error) {
	start := time.Now()
	var f figures
	var err error
	switch {
	case len(args) == 4 && args[0] == "merge":
		f.Size, err = merge(args[1], args[2], args[3])
	case len(args) == 5 && args[0] == "pull":
		f.Size, f.File, err = pull(args[1], args[2], args[3], args[4])
	case len(args) == 3 && args[0] == "mount":
		return mount(args[1], args[2])
	default:
		return f, errors.New("usage: puller merge LAYOUT TAG FILE | pull HOST CA REPOSITORY DIR | mount FILE DIR")
	}
	f.Ms = float64(time.Since(start).Microseconds()) / 1000
	return f, err
}

func merge(layout, tag, file string) (int64, error) {
	a, err := oci.OpenArchive(layout)
	if err != nil {
		return 0, err
	}
	defer a.Close()
	img, err := a.Image(tag, oci.Machine{Arch: []string{runtime.GOARCH}, Variant: 7}, 4<<30)
	if err != nil {
		return 0, err
	}
	out, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	merged, err := oci.Merge(context.Background(), img.Layers, out, oci.Limits{}, nil)
	if err != nil {
		return 0, err
	}
	return merged.Size, out.Sync()
}

func pull(host, ca, repository, dir string) (int64, string, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return 0, "", err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return 0, "", fmt.Errorf("%s: no certificate", ca)
	}
	s, err := image.Open(image.Config{
		Dir: filepath.Join(dir, "state"), MountDir: filepath.Join(dir, "run"),
		OCI: oci.ClientConfig{HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true}}},
	})
	if err != nil {
		return 0, "", err
	}
	defer s.Close()
	img, err := s.Fetch(context.Background(), host+"/"+repository, "", nil)
	if err != nil {
		return 0, "", err
	}
	files, err := filepath.Glob(filepath.Join(dir, "state/blobs/*.img"))
	if err != nil || len(files) != 1 {
		return 0, "", fmt.Errorf("%d images, want one: %w", len(files), err)
	}
	return img.Size, files[0], nil
}

func mount(file, dir string) (figures, error) {
	var took []float64
	f, err := os.Open(file)
	if err != nil {
		return figures{}, err
	}
	defer f.Close()
	for range 21 {
		start := time.Now()
		err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), dir, "erofs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, "")
		took = append(took, float64(time.Since(start).Nanoseconds())/1e6)
		if err != nil {
			return figures{}, fmt.Errorf("mount: %w", err)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			return figures{}, fmt.Errorf("unmount: %w", err)
		}
	}
	slices.Sort(took)
	return figures{Ms: took[len(took)/2]}, nil
}

// peak is the most memory this process has had.
func peak() (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmHWM in /proc/self/status")
}
