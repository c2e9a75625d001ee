// Command fetcher is the device's share of an image update and nothing else, so that its memory can be measured: it fetches one
// bundle into an image store.
//
//	fetcher DIR PUBLIC-KEY CA URL
//	fetcher -- COMMAND ARGUMENT...
//
// CA is the PEM file that the server's certificate is checked with, or empty. The second form runs a peer, from a process as small as
// this one: a child's peak counts what its parent had when it was made. Both print the peak of resident bytes last.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sandpiper-edge/sandpiper/sandbox/image"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "--" {
		if err := other(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "fetcher:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: fetcher DIR PUBLIC-KEY CA URL")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "fetcher:", err)
		os.Exit(1)
	}
}

func run(dir, pub, ca, url string) error {
	text, err := os.ReadFile(pub)
	if err != nil {
		return err
	}
	key, err := bundle.ParsePublicKey(text)
	if err != nil {
		return err
	}
	cfg := image.Config{Dir: filepath.Join(dir, "state"), MountDir: filepath.Join(dir, "run"), Trusted: []bundle.PublicKey{key}, Reserve: 1}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		cfg.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableCompression: true}}
	}
	s, err := image.Open(cfg)
	if err != nil {
		return err
	}
	if _, err := s.Fetch(context.Background(), url, "", nil); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	_, err = fmt.Sscan(peak, &kib)
	fmt.Println(kib << 10)
	return err
}

// other runs a command.
func other(args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return errors.New("no usage of the child")
	}
	fmt.Println(usage.Maxrss << 10)
	return nil
}
