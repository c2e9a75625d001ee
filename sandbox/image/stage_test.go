package image

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// plantings put something where a fetch will write: row H4. victim is a file of somebody else.
func plantings() map[string]func(path, victim string) error {
	return map[string]func(path, victim string) error{
		"symbolic link": func(path, victim string) error { return os.Symlink(victim, path) },
		"hard link":     func(path, victim string) error { return os.Link(victim, path) },
		"pipe":          func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"directory":     func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"junk":          func(path, _ string) error { return os.WriteFile(path, noise(5<<20, 9), 0o600) },
	}
}

func TestH4PlantedFilesInTheStageAreNotWrittenThrough(t *testing.T) {
	t.Parallel()
	spb := big(t, nil)
	head, err := bundle.ReadHeadUnverified(strings.NewReader(string(spb)))
	if err != nil {
		t.Fatal(err)
	}
	name := head.Manifest.Image.Digest.Hex() + partSuffix
	for what, plant := range plantings() {
		s := open(t, nil)
		victim := filepath.Join(s.cfg.Dir, "victim")
		if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := plant(filepath.Join(s.stage(), name), victim); err != nil {
			t.Fatal(err)
		}
		install(t, s, spb)
		if got, err := os.ReadFile(victim); err != nil || string(got) != "mine" {
			t.Errorf("%s: the file behind it holds %d bytes %v", what, len(got), err)
		}
	}
}
