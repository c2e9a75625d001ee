package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// softHSM makes a token with one ECDSA P-256 key "release" and returns the library. The environment is the test's own.
func softHSM(t *testing.T) string {
	t.Helper()
	var library string
	for _, name := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"} {
		if _, err := os.Stat(name); err == nil {
			library = name
		}
	}
	for _, tool := range []string{"softhsm2-util", tokenTool} {
		if _, err := exec.LookPath(tool); err != nil || library == "" {
			t.Skip("SKIPPED: signing with a PKCS #11 token is NOT tested here: install softhsm2 and opensc (make setup)")
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/softhsm2.conf", []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", dir+"/softhsm2.conf")
	t.Setenv(pinVariable, "1234")
	for _, args := range [][]string{
		{"softhsm2-util", "--init-token", "--free", "--label", "signing", "--pin", "1234", "--so-pin", "5678"},
		{tokenTool, "--module", library, "--token-label", "signing", "--login", "--pin", "env:" + pinVariable, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "release", "--id", "01"},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	return library
}

func TestKeyInATokenSignsWithoutLeavingIt(t *testing.T) {
	library := softHSM(t)
	dir := t.TempDir()
	key := "pkcs11:token=signing;object=release?module-path=" + library
	pub := filepath.Join(dir, "release.pub")
	ok(t, "keygen", "--from", key, "-o", pub)
	if got, err := os.ReadFile(pub); err != nil || !strings.HasPrefix(string(got), "-----BEGIN PUBLIC KEY") {
		t.Fatalf("public key file: %q, %v", got, err)
	}
	one, two := filepath.Join(dir, "one.spb"), filepath.Join(dir, "two.spb")
	ok(t, buildArgs(one, demo(t), "--key", key)...)
	ok(t, "verify", "--pub", pub, one)
	if got := ok(t, "inspect", one); !strings.Contains(got, "es256") {
		t.Errorf("inspect printed %q, want es256", got)
	}
	ok(t, buildArgs(two, demo(t))...)
	t.Setenv(moduleVariable, library)
	ok(t, "sign", "--key", "pkcs11:object=release", two)
	ok(t, "verify", "--pub", pub, two)

	for name, tc := range map[string]struct {
		pin, key, says string
		code           int
	}{
		"another key":      {"1234", "pkcs11:object=none", tokenTool, 1},
		"another token":    {"1234", "pkcs11:token=none;object=release", tokenTool, 1},
		"wrong PIN":        {"9999", "pkcs11:object=release", tokenTool, 1},
		"PIN in the URI":   {"1234", "pkcs11:object=release?pin-value=1234", pinVariable, 2},
		"no key named":     {"1234", "pkcs11:token=signing", "object=", 2},
		"unknown part":     {"1234", "pkcs11:object=release;slot=1", "slot", 2},
		"library is no so": {"1234", "pkcs11:object=release?module-path=/etc/passwd", tokenTool, 1},
	} {
		t.Setenv(pinVariable, tc.pin)
		code, _, errs := cli(t, "sign", "--key", tc.key, two)
		if code != tc.code || !strings.Contains(errs, tc.says) || strings.Count(errs, "\n") != 1 || strings.Contains(errs, "9999") {
			t.Errorf("%s: exit code %d, %q, want %d and one line with %q and no PIN", name, code, errs, tc.code, tc.says)
		}
	}
	ok(t, "verify", "--pub", pub, two)
}
