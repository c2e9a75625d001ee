package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// lockDir takes the directory for this process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock image store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock image store: %s is in use by another agent: stop it, or give this one another state_dir", dir)
	}
	return f, nil
}

// unlock gives the directory up. Closing alone would not, while another thread is between fork and exec with a copy of the file.
func unlock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

// step is called before each durable step, and fails where a test says so. doc.go says what a power cut may leave at any of them.
func (s *Store) step(name string) error {
	if s.cfg.hook == nil {
		return nil
	}
	return s.cfg.hook(name)
}

// replaceFile writes content beside path, syncs it, renames it, and syncs the directory, with a step before each.
func (s *Store) replaceFile(what, path string, content []byte) error {
	tmp := path + newSuffix
	err := s.step("write " + what)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = s.step("sync " + what)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = s.step("rename " + what)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	if err := s.step("sync directory of " + what); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// removeIfThere is os.Remove for files that may be gone.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func hasSuffixDigest(name, suffix string) (bundle.Digest, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return bundle.Digest{}, false
	}
	d, err := bundle.ParseDigest("sha256:" + digits)
	return d, err == nil
}
