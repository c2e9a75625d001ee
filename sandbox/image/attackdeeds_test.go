package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// deed is a row that is not something that arrives, but something that is done to the device.
type deed func(v *victim) error

// deeds by row.
func deeds() map[string]deed {
	all := map[string]deed{
		"H2 rot under the module that runs: repaired": (*victim).rotActive,
		"I5 killed at each step":                      (*victim).killed,
		"I6 a second agent on the directory":          (*victim).secondAgent,
		"I6 damaged notes":                            (*victim).damagedNotes,
	}
	for cause, code := range diskErrors {
		all["I4 "+cause.Error()+" at each step of a fetch"] = func(v *victim) error { return v.failing(cause, code) }
	}
	for name, change := range tamperings() {
		all["H1 "+name] = func(v *victim) error { return v.tampered(change) }
	}
	for name, plant := range plantings() {
		all["H4 "+name] = func(v *victim) error { return v.planted(plant) }
	}
	for name, plant := range usurpations() {
		all["H5 "+name] = func(v *victim) error {
			img, err := v.good()
			if err != nil {
				return err
			}
			dir, err := v.store.Mount(v.t.Context(), img)
			if err != nil {
				return err
			}
			plant(v.t, v.store, img, dir)
			if _, err := v.store.Mount(v.t.Context(), img); err != nil {
				return err
			}
			v.contained(name, img)
			return nil
		}
	}
	return all
}

func (v *victim) good() (Image, error) { return v.store.Fetch(v.t.Context(), v.a.Good, "", nil) }

// tampered changes an installed image's file: it is not mounted, and comes again.
func (v *victim) tampered(change func(path string) error) error {
	img, err := v.good()
	if err != nil {
		return err
	}
	r, err := v.store.record(img.Digest)
	if err != nil {
		return err
	}
	v.planting = true
	defer func() { v.planting = false }()
	path := v.store.imagePath(r.manifest.Image.Digest)
	if err := change(path); err != nil {
		return err
	}
	defer func() { _ = os.Remove(path + ".x") }()
	if _, err := v.store.Mount(v.t.Context(), img); err == nil {
		return errors.New("it was mounted")
	}
	if img, err = v.good(); err != nil {
		return err
	}
	v.contained("H1", img)
	return nil
}

// planted has something lie where a fetch will write. What is behind it stays as it is.
func (v *victim) planted(plant func(path, victim string) error) error {
	other := filepath.Join(v.a.Dir, "victim")
	if err := os.WriteFile(other, []byte("mine"), 0o600); err != nil {
		return err
	}
	head, err := headOf(v.a.Good)
	if err != nil {
		return err
	}
	v.planting = true
	defer func() { v.planting = false }()
	if err := plant(v.store.partPath(head.Manifest.Image.Digest), other); err != nil {
		return err
	}
	if _, err := v.good(); err != nil {
		return err
	}
	if got, err := os.ReadFile(other); err != nil || string(got) != "mine" {
		return fmt.Errorf("the file behind it holds %d bytes, %w", len(got), err)
	}
	return os.Remove(other)
}

func headOf(ref string) (bundle.Head, error) {
	f, err := os.Open(strings.TrimPrefix(ref, "file://"))
	if err != nil {
		return bundle.Head{}, err
	}
	defer func() { _ = f.Close() }()
	return bundle.ReadHeadUnverified(f)
}

// rotActive damages the image of the module that runs, which is repaired under it.
func (v *victim) rotActive() error {
	rot(v.t, v.store, v.active, v.active.Size-10)
	rot(v.t, v.store, v.active, v.active.Size/2)
	n, err := v.store.Repair(v.t.Context(), v.active.Digest)
	if err != nil || n < 1 || n > 2 {
		return fmt.Errorf("%d chunks were replaced, %w", n, err)
	}
	return v.store.Verify(v.t.Context(), v.active)
}

// failing has the disk refuse each step of a fetch in turn, once.
func (v *victim) failing(cause error, code bundle.Code) error {
	v.steps = nil
	img, err := v.good()
	if err != nil {
		return err
	}
	steps := slices.Compact(slices.Clone(v.steps))
	for _, step := range steps {
		if _, err := v.store.GC(v.t.Context(), []bundle.Digest{v.active.Digest}); err != nil {
			return err
		}
		done := false
		v.fail = func(at string) error {
			if done || at != step {
				return nil
			}
			done = true
			return cause
		}
		_, err := v.good()
		v.fail = nil
		if quiet := strings.HasSuffix(step, "notes"); !quiet && (!errors.Is(err, cause) || bundle.CodeOf(err) != code) {
			return fmt.Errorf("at %s: got %w (code %s), want %v", step, err, bundle.CodeOf(err), cause) //nolint:errorlint // what was wanted is no cause
		}
		if err := v.module.ask("I4 at " + step); err != nil {
			return err
		}
		if img, err = v.good(); err != nil {
			return fmt.Errorf("after %s: %w", step, err)
		}
	}
	if len(steps) < 10 {
		return fmt.Errorf("only the steps %q failed", steps)
	}
	return v.store.Verify(v.t.Context(), img)
}

// killed has an agent killed at each step of a fetch, and the next one go on.
func (v *victim) killed() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ca := filepath.Join(v.a.Dir, "ca.pem")
	if err := os.WriteFile(ca, []byte(v.a.CA), 0o600); err != nil {
		return err
	}
	v.steps = nil
	if _, err := v.store.Fetch(v.t.Context(), v.a.Killed+"2.spb", "", nil); err != nil {
		return err
	}
	steps := slices.Compact(slices.Clone(v.steps))
	steps = slices.DeleteFunc(steps, func(step string) bool { return strings.HasSuffix(step, "notes") }) // nothing new is noted the second time
	for _, step := range steps {
		if _, err := v.store.GC(v.t.Context(), []bundle.Digest{v.active.Digest}); err != nil {
			return err
		}
		if err := v.store.Close(); err != nil {
			return err
		}
		cmd := exec.CommandContext(context.WithoutCancel(v.t.Context()), self, "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "IMAGE_KILLED="+strings.Join([]string{"whole", step, "1", v.cfg.Dir, v.cfg.MountDir, v.a.Killed, ca}, "\n"))
		out, err := cmd.CombinedOutput()
		v.openStore()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != unix.SIGKILL {
			return fmt.Errorf("%s: the child ended with %w, want it killed: %s", step, err, out)
		}
		v.onlyDocumented("killed at " + step)
		if err := v.module.ask("a kill at " + step); err != nil {
			return err
		}
		img, err := v.store.Fetch(v.t.Context(), v.a.Killed+"2.spb", "", nil)
		if err == nil {
			err = v.store.Verify(v.t.Context(), img)
		}
		if err != nil {
			return fmt.Errorf("after a kill at %s: %w", step, err)
		}
	}
	if len(steps) < 10 {
		return fmt.Errorf("killed only at %q", steps)
	}
	return nil
}

func (v *victim) secondAgent() error {
	second, err := Open(v.cfg)
	if err == nil {
		return errors.Join(errors.New("it was let in"), second.Close())
	}
	return nil
}

// damagedNotes costs a pin, and no image.
func (v *victim) damagedNotes() error {
	if err := v.store.Close(); err != nil {
		return err
	}
	err := os.WriteFile(v.store.notesPath(), []byte(`{"version":1,"images":{"sha256:`), 0o600)
	v.openStore()
	if _, ok := v.store.Lookup(v.active.Digest); !ok {
		return errors.New("the active module's image is not installed any more")
	}
	return err
}
