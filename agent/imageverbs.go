package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/sandbox/image"
)

// imageFuncs are `sandpiper image`.
func (a *Agent) imageFuncs() control.ImageFuncs {
	return control.ImageFuncs{List: a.listImages, Pull: a.pullImage, Load: a.loadImage}
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
	doc := control.Image{
		Digest: img.Digest.String(), Kind: "bundle", Name: img.Name, Version: img.Version, Size: img.Size, Installed: img.Installed.UTC().Truncate(time.Second),
		Mounted: mounted, Signer: fmt.Sprint(img.Signer),
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
