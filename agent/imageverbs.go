package agent

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/sandbox/image"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// imageFuncs are `sandpiper image`.
func (a *Agent) imageFuncs() control.ImageFuncs {
	return control.ImageFuncs{List: a.listImages, Pull: a.pullImage, Load: a.loadImage, Verify: a.verifyImage, GC: a.collectImages, Pin: a.pinImage}
}

func (a *Agent) listImages(context.Context) ([]control.Image, error) {
	list := []control.Image{}
	for _, img := range a.images.List() {
		list = append(list, a.imageDocument(img))
	}
	return list, nil
}

func (a *Agent) imageDocument(img image.Image) control.Image {
	_, mounted := a.images.Mounted(img)
	is := a.images.Standing(img)
	doc := control.Image{
		Digest: img.Digest.String(), Kind: "bundle", Name: img.Name, Version: img.Version, Size: img.Size, Installed: img.Installed.UTC().Truncate(time.Second),
		Mounted: mounted, Signer: fmt.Sprint(img.Signer), Active: is.Active, Previous: is.Previous, Pinned: is.Pinned, Kept: img.OCI != nil && img.OCI.Kept && len(img.OCI.Names) > 0, Checked: is.Checked.UTC().Truncate(time.Second),
	}
	if o := img.OCI; o != nil {
		doc.Kind, doc.Names, doc.Signer, doc.Config, doc.Stripped = "oci", o.Names, o.Signer, o.Config, o.Stripped
	}
	return doc
}

// pullImage brings an image before a deployment asks for it; a bundle that none asks for is collected again.
func (a *Agent) pullImage(ctx context.Context, ref string) (control.Image, error) {
	img, err := a.images.Fetch(ctx, ref, "", nil)
	if err == nil {
		img, err = a.images.Hold(img)
	}
	if err != nil {
		return control.Image{}, err
	}
	return a.imageDocument(img), nil
}

func (a *Agent) loadImage(ctx context.Context, file, want, name string) (control.Image, error) {
	if !filepath.IsAbs(file) {
		return control.Image{}, fmt.Errorf("load %q: not an absolute path: %w", file, control.ErrRefused)
	}
	img, err := a.images.Load(ctx, file, want, name, nil)
	if err != nil {
		return control.Image{}, err
	}
	return a.imageDocument(img), nil
}

// verifyImage reads an image whole. That it is damaged is an answer, not an error.
func (a *Agent) verifyImage(ctx context.Context, name string, repair bool) (control.Image, error) {
	img, err := a.images.Find(name)
	if err != nil {
		return control.Image{}, notHere(name, err)
	}
	replaced := 0
	if repair {
		replaced, err = a.images.Repair(ctx, img.Digest)
	} else {
		err = a.images.Verify(ctx, img)
	}
	if ctx.Err() != nil {
		return control.Image{}, context.Cause(ctx)
	}
	doc := a.imageDocument(img)
	doc.Repaired = replaced
	if err != nil {
		doc.Damaged = err.Error()
	}
	return doc, nil
}

// collectImages removes what no module needs now and none needed before, or says what that is.
func (a *Agent) collectImages(ctx context.Context, dryRun bool) ([]control.Image, error) {
	keep, err := a.neededImages()
	if err != nil {
		return nil, err
	}
	collect := func() ([]image.Image, error) { return a.images.GC(ctx, keep) }
	if dryRun {
		collect = func() ([]image.Image, error) { return a.images.Garbage(keep) }
	}
	garbage, err := collect()
	if err != nil {
		return nil, err
	}
	docs := []control.Image{}
	for _, img := range garbage {
		docs = append(docs, a.imageDocument(img))
	}
	return docs, nil
}

// neededImages are those of all modules, and those that arrived for a deployment that is being carried out.
func (a *Agent) neededImages() ([]bundle.Digest, error) {
	select {
	case <-a.supervisor.Ready():
	default:
		return nil, fmt.Errorf("modules are still being looked for, so it is not known which images they need: try again in a moment: %w", control.ErrRefused)
	}
	keep := a.arrived.list()
	for _, m := range a.supervisor.Modules() {
		if m.Digest == "" {
			continue // without a program
		}
		d, err := bundle.ParseDigest(m.Digest)
		if err != nil {
			return nil, err
		}
		keep = append(keep, d)
	}
	return keep, nil
}

func (a *Agent) pinImage(_ context.Context, name string, pinned bool) (control.Image, error) {
	img, err := a.images.Find(name)
	if err == nil {
		err = a.images.Pin(img.Digest, pinned)
	}
	if err != nil {
		return control.Image{}, notHere(name, err)
	}
	return a.imageDocument(img), nil
}

// notHere gives an image that is not here the word of the control socket for it.
func notHere(name string, err error) error {
	if bundle.CodeOf(err) == bundle.ErrAbsent {
		return fmt.Errorf("image %q is not here, `sandpiper image list` shows what is: %w", name, control.ErrNotFound)
	}
	return err
}

// arrivals are images that came for a deployment and are in no seat yet.
type arrivals struct {
	mu  sync.Mutex
	all map[bundle.Digest]bool
}

func (a *arrivals) add(d bundle.Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = make(map[bundle.Digest]bool)
	}
	a.all[d] = true
}

func (a *arrivals) list() []bundle.Digest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.all))
}

// seated says that the deployment was carried out.
func (a *arrivals) seated() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = nil
}
