package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// releases builds two bundles of one module that differ in a few bytes of one file.
func releases(t *testing.T) (dir, old, next string) {
	t.Helper()
	dir = t.TempDir()
	noise := make([]byte, 400<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	paths := [2]string{filepath.Join(dir, "old.spb"), filepath.Join(dir, "new.spb")}
	for i, text := range []string{"a = 1\n", "a = 2\n"} {
		ok(t, "build", "-o", paths[i], "--name", "demo", "--version", "1", "--sequence", []string{"1", "2"}[i], "--arg", "/bin/run",
			tree(t, map[string]string{"bin/run": "#!/bin/sh\n", "etc/conf": text, "lib/data": string(noise)}))
	}
	return dir, paths[0], paths[1]
}

func TestDeltaIsSmallReproducibleAndNamedForDevices(t *testing.T) {
	t.Parallel()
	dir, old, next := releases(t)
	var m made
	if err := json.Unmarshal([]byte(ok(t, "delta", "--json", old, next)), &m); err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, m.From.Hex()[:16]+"-"+m.To.Hex()[:16]+".spd"); m.File != want {
		t.Errorf("file: got %s, want %s", m.File, want)
	}
	if m.Size > 1000 || m.Full < 400<<10 {
		t.Errorf("delta of %d bytes instead of %d, want less than 1000", m.Size, m.Full)
	}
	ok(t, "delta", "-o", dir+"/again.spd", old, next)
	one, err := os.ReadFile(m.File)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := os.ReadFile(dir + "/again.spd"); err != nil || !bytes.Equal(one, two) {
		t.Errorf("the same bundles gave another delta (%v)", err)
	}
	for name, args := range map[string][]string{"the same": {"delta", old, old}, "no bundle": {"delta", old, m.File}, "one": {"delta", old}} {
		if code, _, errs := cli(t, args...); code == 0 || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, want one line", name, code, errs)
		}
	}
}

func TestDetachedSigningNeverSeesThePayload(t *testing.T) {
	t.Parallel()
	dir, old, next := releases(t)
	key := filepath.Join(dir, "k.key")
	ok(t, "keygen", "-o", key)
	ok(t, "inspect", "--envelope", dir+"/x.spe", next)
	ok(t, "sign", "--detached", "--key", key, dir+"/x.spe")
	ok(t, "sign", "--envelope", dir+"/x.spe", next)
	ok(t, "verify", "--pub", dir+"/k.pub", next)
	attached, err := os.ReadFile(next)
	if err != nil {
		t.Fatal(err)
	}
	ok(t, "sign", "--key", key, next)
	if direct, err := os.ReadFile(next); err != nil || !bytes.Equal(direct, attached) {
		t.Errorf("signed apart and signed in place differ (%v)", err)
	}
	ok(t, "inspect", "--envelope", dir+"/unsigned.spe", old)
	for name, args := range map[string][]string{
		"another bundle's":        {"sign", "--envelope", dir + "/x.spe", old},
		"not signed":              {"sign", "--envelope", dir + "/unsigned.spe", old},
		"a bundle":                {"sign", "--detached", "--key", key, next},
		"key and envelope":        {"sign", "--key", key, "--envelope", dir + "/x.spe", next},
		"neither":                 {"sign", next},
		"envelope is no envelope": {"sign", "--envelope", key, next},
	} {
		if code, _, errs := cli(t, args...); code == 0 || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, want one line", name, code, errs)
		}
	}
}

// TestMain lets a test run this very program as another user.
func TestMain(m *testing.M) {
	if args, ok := os.LookupEnv("SANDPIPER_BUNDLE_ARGS"); ok {
		os.Exit(run(context.Background(), strings.Split(args, "\n"), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestExtractWritesFilesAndRefusesRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // another user of this test writes there
		t.Fatal(err)
	}
	spb := filepath.Join(dir, "x.spb")
	root := tree(t, map[string]string{"bin/run": "#!/bin/sh\necho hi\n", "etc/conf": "a = 1\n"})
	if err := os.Symlink("/etc/passwd", root+"/etc/link"); err != nil {
		t.Fatal(err)
	}
	ok(t, buildArgs(spb, root)...)
	if os.Geteuid() == 0 {
		if code, _, errs := cli(t, "extract", spb, dir+"/as-root"); code != 1 || !strings.Contains(errs, "root") {
			t.Errorf("as root: exit code %d, %q, want a refusal", code, errs)
		}
	}
	ok(t, "extract", "--image", spb, dir+"/x.img")
	if img, err := os.ReadFile(dir + "/x.img"); err != nil || len(img)%4096 != 0 {
		t.Errorf("image: %d bytes, %v", len(img), err)
	}

	extract := func(to string) ([]byte, error) {
		self := "/proc/self/exe"
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), "SANDPIPER_BUNDLE_ARGS=extract\n"+spb+"\n"+to)
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}}
			for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
				if err := os.Chmod(d, 0o777); err != nil { //nolint:gosec // the same
					t.Fatal(err)
				}
			}
		}
		return cmd.CombinedOutput()
	}
	if out, err := extract(dir + "/files"); err != nil {
		t.Fatalf("extract: %v: %s", err, out)
	}
	for name, want := range map[string]string{"bin/run": "#!/bin/sh\necho hi\n", "etc/conf": "a = 1\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, "files", name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	if target, err := os.Readlink(dir + "/files/etc/link"); err != nil || target != "/etc/passwd" {
		t.Errorf("link: got %q, %v, want /etc/passwd", target, err)
	}
	if info, err := os.Stat(dir + "/files/bin/run"); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("bin/run: %v, %v, want executable", info, err)
	}
	if out, err := extract(dir + "/files"); err == nil {
		t.Errorf("into a directory with files: %s, want a refusal", out)
	}
}
