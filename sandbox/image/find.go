package image

import (
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// leastDigits of a digest that may stand for the whole.
const leastDigits = 6

// Find returns the installed image that an operator means: by its digest or the first digits of it, by a reference of an OCI image, or
// by a bundle's name, which is that of the highest sequence.
func (s *Store) Find(name string) (Image, error) {
	if img, ok := s.Named(name); ok {
		return img, nil
	}
	digits := strings.TrimPrefix(name, "sha256:")
	var found []Image
	for _, img := range s.List() { // by name and then sequence
		switch {
		case len(digits) >= leastDigits && strings.HasPrefix(img.Digest.Hex(), digits):
			found = append(found, img)
		case img.OCI == nil && img.Name == name:
			found = []Image{img}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Image{}, bundle.Reject(bundle.ErrAbsent, "no image here is called %q: `sandpiper image list` shows what is", name)
	}
	return Image{}, bundle.Reject(bundle.ErrReference, "%d images here have a digest that begins with %q: give more of it", len(found), digits)
}
