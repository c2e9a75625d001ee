package container_test

import (
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// BenchmarkStart is /bin/true from Create to Destroy, with everything on.
func BenchmarkStart(b *testing.B) {
	r, err := container.New(container.Config{StateDir: openDir(b)})
	if err != nil {
		b.Skip("SKIPPED, no sandbox can be made here: ", err)
	}
	s := sandbox.Spec{
		ID: "bench", Args: []string{"/bin/true"}, IDBase: 1 << 30,
		Root:   sandbox.Root{Kind: sandbox.HostView, Image: "/var"},
		Limits: sandbox.Limits{Memory: 64 << 20, CPU: 500},
	}
	for b.Loop() {
		i, err := r.Create(b.Context(), s)
		if err != nil {
			b.Fatal(err)
		}
		if err := i.Start(); err != nil {
			b.Fatal(err)
		}
		if _, err := i.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := i.Destroy(); err != nil {
			b.Fatal(err)
		}
	}
}
