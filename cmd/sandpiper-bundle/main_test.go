package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// cli runs the tool and returns its exit code and both streams.
func cli(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func ok(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := cli(t, args...)
	if code != 0 {
		t.Fatalf("%s: exit code %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o640)
		if strings.HasPrefix(content, "#!") {
			mode = 0o750
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func demo(t *testing.T) string {
	t.Helper()
	return tree(t, map[string]string{"bin/run": "#!/bin/sh\necho hi\n", "etc/conf": "a = 1\n"})
}

func buildArgs(out, dir string, more ...string) []string {
	return append([]string{"build", "-o", out, "--name", "demo", "--version", "1.0.0", "--sequence", "3", "--arg", "/bin/run", dir}, more...)
}

func TestKeyBuildVerifyInspect(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"ed25519", "es256"} {
		dir := t.TempDir()
		key, spb := filepath.Join(dir, "acme.key"), filepath.Join(dir, "demo.spb")
		ok(t, "keygen", "--alg", alg, "-o", key)
		if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: private key %v %v, want mode 0600", alg, info.Mode(), err)
		}
		out := ok(t, buildArgs(spb, demo(t), "--key", key, "--env", "A=b=c", "--cwd", "/etc", "--user", "app", "--stop-signal", "SIGINT")...)
		if !strings.Contains(out, "digest sha256:") || !strings.Contains(out, "signed by") {
			t.Errorf("%s: build printed %q", alg, out)
		}
		if got := ok(t, "verify", "--pub", filepath.Join(dir, "acme.pub"), spb); !strings.Contains(got, "good: demo 1.0.0, sequence 3") {
			t.Errorf("%s: verify printed %q", alg, got)
		}
		var seen struct {
			Signed   bool `json:"signed"`
			Manifest struct {
				Name    string         `json:"name"`
				Runtime bundle.Runtime `json:"runtime"`
			} `json:"manifest"`
		}
		if err := json.Unmarshal([]byte(ok(t, "inspect", "--json", spb)), &seen); err != nil {
			t.Errorf("%s: inspect --json: %v", alg, err)
		}
		if !seen.Signed || seen.Manifest.Name != "demo" || seen.Manifest.Runtime.Env["A"] != "b=c" {
			t.Errorf("%s: inspect --json: got %+v", alg, seen)
		}
		for _, line := range []string{"demo 1.0.0, sequence 3", alg + " by key", "A=\"b=c\"", "linux any", "/bin/run", "SIGINT"} {
			if got := ok(t, "inspect", spb); !strings.Contains(got, line) {
				t.Errorf("%s: inspect printed %q, want %q in it", alg, got, line)
			}
		}
		if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
			t.Errorf("%s: left behind: %v %v", alg, left, err)
		}
	}
}

func TestSameFilesGiveTheSameBundleFromAnyDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "k.key")
	ok(t, "keygen", "-o", key)
	var first []byte
	for i, root := range []string{demo(t), demo(t)} {
		spb := filepath.Join(dir, string(rune('a'+i))+".spb")
		ok(t, buildArgs(spb, root, "--key", key)...)
		b, err := os.ReadFile(spb)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Errorf("build %d differs from the first", i)
		}
	}
}

func TestSigningApartGivesTheSameFile(t *testing.T) {
	t.Parallel()
	dir, root := t.TempDir(), demo(t)
	key := filepath.Join(dir, "k.key")
	ok(t, "keygen", "-o", key)
	one, two := filepath.Join(dir, "1.spb"), filepath.Join(dir, "2.spb")
	ok(t, buildArgs(one, root, "--key", key)...)
	if out := ok(t, buildArgs(two, root)...); !strings.Contains(out, "NOT signed") {
		t.Errorf("build without a key printed %q", out)
	}
	if code, _, errs := cli(t, "verify", "--pub", filepath.Join(dir, "k.pub"), two); code != 1 || !strings.Contains(errs, "not signed") {
		t.Errorf("verify of an unsigned bundle: exit code %d, %q", code, errs)
	}
	ok(t, "sign", "--key", key, two)
	a, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(two)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("a bundle signed afterwards differs from one signed while it was built")
	}
}

func TestGoPackageBecomesABundle(t *testing.T) {
	t.Parallel()
	spb := filepath.Join(t.TempDir(), "go.spb")
	ok(t, "build", "-o", spb, "--name", "tool", "--version", "1", "--sequence", "1", "--go", ".", "--arch", "arm64", demo(t))
	if got := ok(t, "inspect", spb); !strings.Contains(got, "linux arm64") || !strings.Contains(got, `"/tool"`) {
		t.Errorf("inspect printed %q, want linux arm64 and /tool", got)
	}
}

func TestMistakesAreOneLineAndTheRightExitCode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "k.key")
	spb := filepath.Join(dir, "x.spb")
	ok(t, "keygen", "-o", key)
	other := filepath.Join(dir, "other.key")
	ok(t, "keygen", "-o", other)
	ok(t, buildArgs(spb, demo(t), "--key", key)...)
	open := filepath.Join(dir, "open.key")
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	damaged, err := os.ReadFile(spb)
	if err != nil {
		t.Fatal(err)
	}
	damaged[len(damaged)-1] ^= 1
	for path, content := range map[string][]byte{open: text, dir + "/bad.spb": damaged, dir + "/text.spb": []byte(strings.Repeat("hello ", 9))} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "new.spb")
	pub := filepath.Join(dir, "k.pub")
	mixed := tree(t, map[string]string{"bin/run": "#!", "a": elfHead(elf.EM_X86_64), "b": elfHead(elf.EM_AARCH64)})
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no such verb":         {[]string{"bild"}, 2, "bild"},
		"no such flag":         {[]string{"build", "--nam", "x"}, 2, "--nam"},
		"flag missing":         {[]string{"build", "-o", out, demo(t)}, 2, "name"},
		"no directory":         {[]string{"build", "-o", out, "--name", "a", "--version", "1", "--sequence", "1"}, 2, "directory"},
		"sequence no number":   {buildArgs(out, demo(t), "--sequence", "x"), 2, "sequence"},
		"bad env":              {buildArgs(out, demo(t), "--env", "A"), 2, "NAME=VALUE"},
		"bad time":             {buildArgs(out, demo(t), "--expires", "tomorrow"), 2, "2030-"},
		"bad dependency":       {buildArgs(out, demo(t), "--depends", "x"), 2, "NAME:MIN"},
		"bad epoch":            {buildArgs(out, demo(t), "--source-date-epoch", "-1"), 2, "Unix seconds"},
		"bad name":             {buildArgs(out, demo(t), "--name", "A"), 1, "lower-case"},
		"bad stop signal":      {buildArgs(out, demo(t), "--stop-signal", "SIGSTOP"), 1, "SIGTERM"},
		"program not there":    {append(buildArgs(out, demo(t))[:9], "--arg", "/bin/other", demo(t)), 1, "bin/other"},
		"not executable":       {append(buildArgs(out, demo(t))[:9], "--arg", "/etc/conf", demo(t)), 1, "chmod"},
		"no such directory":    {buildArgs(out, dir+"/none"), 1, "none"},
		"two machines":         {buildArgs(out, mixed), 1, "--arch"},
		"key of others":        {buildArgs(out, demo(t), "--key", open), 1, "chmod 600"},
		"public for private":   {[]string{"sign", "--key", pub, spb}, 1, ""},
		"key overwritten":      {[]string{"keygen", "-o", key}, 1, "never overwritten"},
		"unknown algorithm":    {[]string{"keygen", "--alg", "rsa", "-o", dir + "/r"}, 2, "ed25519"},
		"verify with other":    {[]string{"verify", "--pub", filepath.Join(dir, "other.pub"), spb}, 1, "unknown key"},
		"verify with private":  {[]string{"verify", "--pub", key, spb}, 1, "PUBLIC KEY"},
		"verify damaged":       {[]string{"verify", "--pub", pub, dir + "/bad.spb"}, 1, "E_CHUNK"},
		"verify text":          {[]string{"verify", "--pub", pub, dir + "/text.spb"}, 1, "not a Sandpiper bundle"},
		"inspect text":         {[]string{"inspect", dir + "/text.spb"}, 1, "not a Sandpiper bundle"},
		"inspect nothing":      {[]string{"inspect", dir + "/none.spb"}, 1, "none.spb"},
		"sign text":            {[]string{"sign", "--key", key, dir + "/text.spb"}, 1, "not a Sandpiper bundle"},
		"output not writeable": {buildArgs(dir+"/none/x.spb", demo(t)), 1, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, _, errs := cli(t, tc.args...)
			if code != tc.code || !strings.Contains(errs, tc.says) || strings.Count(errs, "\n") != 1 {
				t.Errorf("exit code %d, %q, want %d and one line with %q", code, errs, tc.code, tc.says)
			}
		})
	}
	t.Cleanup(func() {
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s was written by a build that failed", out)
		}
	})
}

func elfHead(m elf.Machine) string {
	head := make([]byte, 64)
	copy(head, elf.ELFMAG)
	head[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	head[18] = byte(m)
	head[19] = byte(m >> 8)
	return string(head)
}

func TestArchIsReadFromThePrograms(t *testing.T) {
	t.Parallel()
	for arch, m := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm v7": elf.EM_ARM, "riscv64": elf.EM_RISCV, "mips": elf.EM_MIPS} {
		spb := filepath.Join(t.TempDir(), "x.spb")
		ok(t, buildArgs(spb, tree(t, map[string]string{"bin/run": "#!/bin/sh\n", "lib/x.so": elfHead(m)}))...)
		if got := ok(t, "inspect", spb); !strings.Contains(got, "linux "+arch) {
			t.Errorf("inspect printed %q, want linux %s", got, arch)
		}
	}
}

func TestCompletionAndHelpAreThere(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"completion", "bash"}, {"completion", "zsh"}, {"help"}, {"help", "build"}, {"version"}, {}} {
		if out := ok(t, args...); len(out) < 10 {
			t.Errorf("%v printed %q", args, out)
		}
	}
}

func TestAnInterruptedCommandEndsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, spb := filepath.Join(dir, "acme.key"), filepath.Join(dir, "demo.spb")
	ok(t, "keygen", "-o", key)
	ok(t, buildArgs(spb, demo(t), "--key", key)...)
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	for _, args := range [][]string{
		{"verify", "--pub", filepath.Join(dir, "acme.pub"), spb},
		{"extract", "--image", spb, filepath.Join(dir, "image")},
		buildArgs(filepath.Join(dir, "new.spb"), demo(t)),
	} {
		var out, errs bytes.Buffer
		if code := run(ctx, args, &out, &errs); code != 130 {
			t.Errorf("%s: got %d, %q, want 130", args[0], code, errs.String())
		}
	}
	after, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(before) {
		t.Errorf("got %v left, want %v", after, before)
	}
}
