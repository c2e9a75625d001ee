package image

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci/ocitest"
)

func TestI4APullThatCannotFitIsRefusedBeforeALayerComes(t *testing.T) {
	t.Parallel()
	asRoot(t)
	r := registryOf(t, &ocitest.Registry{})
	for claim, c := range map[string]struct {
		disk string
		most int64 // bytes of all images
		want bundle.Code
	}{
		"layers fit, and not the image beside them": {"size=900k", 0, bundle.ErrSpace},
		"more than the configuration keeps":         {"size=8m", 450 << 10, bundle.ErrSpace},
		"both fit":                                  {"size=8m", 2 << 20, ""},
	} {
		disk := t.TempDir()
		if err := unix.Mount("x", disk, "tmpfs", 0, c.disk); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
		s := open(t, trusting(r, func(cfg *Config) { cfg.Dir, cfg.MaxBytes = filepath.Join(disk, "state"), c.most }))
		before := r.Sent.Load()
		_, err := s.Fetch(t.Context(), r.Host()+"/team/app:1", "", nil)
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", claim, err, c.want)
		}
		if came := r.Sent.Load() - before; err != nil && came > 4<<10 { // its config
			t.Errorf("%s: %d bytes came for nothing", claim, came)
		}
	}
}
