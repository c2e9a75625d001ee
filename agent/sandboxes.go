package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
	"github.com/sandpiper-edge/sandpiper/sandbox/image"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// buildSandboxes makes the runtime, the image store and the supervisor on top of them.
func (a *Agent) buildSandboxes(context.Context) (err error) {
	if a.runtime, err = container.New(container.Config{StateDir: a.cfg.RunDir, Logger: a.log}); err != nil {
		return err
	}
	for _, line := range a.runtime.Probe().Degraded {
		a.log.Warn("kernel lacks something", "what", line)
	}
	trusted, err := a.cfg.signers()
	if err != nil {
		return err
	}
	roots, err := rootsFrom(a.cfg.Bundles.TrustedCA)
	if err != nil {
		return err
	}
	registries, policies, err := a.registries()
	if err != nil {
		return err
	}
	if a.images, err = image.Open(image.Config{
		Dir: filepath.Join(a.cfg.StateDir, "images"), MountDir: filepath.Join(a.cfg.RunDir, "images"), Trusted: trusted,
		HTTP: oci.HTTPClient(roots), MaxBytes: int64(a.cfg.Bundles.MaxBytes), Logger: a.log,
		OCI: oci.ClientConfig{Registries: registries, Logins: a.logins}, Policies: policies,
		Mirrors: a.cfg.Bundles.mirrors(), Rate: int64(a.cfg.Bundles.Rate), Metered: a.cfg.Bundles.Metered, Monthly: int64(a.cfg.Bundles.Monthly),
	}); err != nil {
		return err
	}
	logs := filepath.Join(a.cfg.StateDir, "log")
	if a.cfg.Modules.Logs == LogsInMemory {
		if err := os.RemoveAll(logs); err != nil { // of an agent that kept them on disk
			a.log.Warn("old logs of modules stay on the disk", "err", err)
		}
		logs = filepath.Join(a.cfg.RunDir, "logs")
	}
	a.supervisor, err = supervisor.New(supervisor.Config{
		Device: a.dev.id, Runtime: pinRuntime{a.runtime, a}, Images: shelf{a}, Hosting: hosting{a}, Twins: a.twins, Docs: a.store.Docs(),
		LogDir: logs, LogTotal: int64(a.cfg.Modules.LogTotal), LogRate: int64(a.cfg.Modules.LogRate), FIFODir: filepath.Join(a.cfg.RunDir, "log"), IDBase: a.cfg.Modules.IDBase, Full: a.fullPlaces,
		Age: processAge, Commit: a.commitImage, Build: a.buildInfo(), Platform: deployment.Platform{OS: "linux", Architecture: machine(), Version: a.version}, Logger: a.log,
	})
	return err
}

func (a *Agent) buildInfo() deployment.Build { return deployment.Build{Version: a.version} }

// shelf is the image store as the supervisor sees it.
type shelf struct{ a *Agent }

// Fetch has the module's image here and verified.
func (s shelf) Fetch(ctx context.Context, m deployment.Module) (supervisor.Image, error) {
	if err := s.a.honourable(m); err != nil {
		return supervisor.Image{}, err
	}
	if m.Type == deployment.Hal {
		return supervisor.Image{}, nil // it runs from none
	}
	ref := m.Settings.Image
	if m.Pull == deployment.NeverPull && !strings.HasPrefix(ref, "bundle:") {
		return s.present(m)
	}
	last := time.Now()
	img, err := s.a.images.Fetch(ctx, ref, m.Settings.Digest, func(p image.Progress) {
		if now := time.Now(); now.Sub(last) >= 5*time.Second {
			last = now
			s.a.log.Info("image arrives", "module", m.Name, "image", p.Image, "phase", string(p.Phase), "bytes", p.Done, "of", p.Total, "received", p.Received, "left", p.Left)
		}
	})
	if err != nil {
		return supervisor.Image{}, finalIfRefused(m, err)
	}
	return s.describe(m, img)
}

// present finds an image without the network, as the pull policy "never" wants it.
func (s shelf) present(m deployment.Module) (supervisor.Image, error) {
	if img, ok := s.a.images.Named(m.Settings.Image); ok && (m.Settings.Digest == "" || m.Settings.Digest == img.Digest.String() || m.Settings.Digest == img.OCI.Index.String()) {
		return s.describe(m, img)
	}
	images := s.a.images.List()
	for i := len(images) - 1; i >= 0; i-- { // the newest first
		img := images[i]
		if m.Settings.Digest == img.Digest.String() || m.Settings.Digest == "" && img.Name == m.Name {
			return s.describe(m, img)
		}
	}
	return supervisor.Image{}, &deployment.Error{
		Path: "modules." + m.Name + ".settings.image", Why: "the image is not on this device and imagePullPolicy is never", Code: deployment.CodeFailed,
	}
}

// finalIfRefused keeps the supervisor from asking again for what will be refused again.
func finalIfRefused(m deployment.Module, err error) error {
	if refused, ok := errors.AsType[*bundle.Error](err); ok && bundle.CodeOf(err).Final() {
		return &deployment.Error{Path: "modules." + m.Name + ".settings.image", Why: refused.Error(), Code: deployment.CodeFailed}
	}
	return err
}

// Keep removes what no module needs.
func (s shelf) Keep(ctx context.Context, digests []string) error {
	keep := make([]bundle.Digest, 0, len(digests))
	for _, text := range digests {
		if text == "" {
			continue // of a module without a program
		}
		d, err := bundle.ParseDigest(text)
		if err != nil {
			return err
		}
		keep = append(keep, d)
	}
	removed, err := s.a.images.GC(ctx, keep)
	s.a.arrived.seated()
	for _, img := range removed {
		s.a.log.Info("unused image removed", "image", img.Name+" "+img.Version)
	}
	return err
}

// commitImage notes that an image proved itself: nothing older of its module is installed any more.
func (a *Agent) commitImage(digest string) error {
	if digest == "" {
		return nil
	}
	d, err := bundle.ParseDigest(digest)
	if err != nil {
		return err
	}
	return a.images.Commit(d)
}

// mount returns the directory of an installed image.
func (a *Agent) mount(ctx context.Context, digest string) (string, error) {
	d, err := bundle.ParseDigest(digest)
	if err != nil {
		return "", err
	}
	img, ok := a.images.Lookup(d)
	if !ok {
		return "", fmt.Errorf("image %s is not installed", digest)
	}
	return a.images.Mount(ctx, img)
}

// StopModules ends every module, for the end of the agent's service.
func (a *Agent) StopModules() {
	a.stopping.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	a.supervisor.StopAll(ctx)
	a.releaseAllData()
	for _, img := range a.images.List() {
		if err := a.images.Unmount(ctx, img); err != nil {
			a.log.Warn("image stays mounted", "image", img.Name+" "+img.Version, "err", err)
		}
	}
}

// stopPatience bounds the end of all modules together; systemd gives a service 90 s.
const stopPatience = 80 * time.Second

// hostOrigin is a listener on the host that anybody of this device may use.
func hostOrigin(addr string) mqtt.Origin { return mqtt.Origin{Label: addr} }
