package effective

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestProbesAreManyAndNamedOnce(t *testing.T) {
	t.Parallel()
	names := Names()
	if len(names) < 60 {
		t.Errorf("got %d probes, want at least 60", len(names))
	}
	seen := map[string]bool{}
	for _, n := range names {
		if seen[n] || n == "" {
			t.Errorf("%q: twice or without a name", n)
		}
		seen[n] = true
	}
	for _, n := range append(slices.Clone(basics), probeNodes, probeWritable, "see other interfaces than loopback", "bind a port below 1024", "use memory without bound", "make processes without bound", "call the kernel unfiltered") {
		if !seen[n] {
			t.Errorf("%q is spoken of and never tried", n)
		}
	}
}

// TestAPlainProcessCanDoWhatASandboxCannot: the probes notice when there is no
// wall, in this very process.
func TestAPlainProcessCanDoWhatASandboxCannot(t *testing.T) {
	t.Parallel()
	drift := Grants{Memory: true, Pids: true, Seccomp: true, Groups: true}.Drift(Run())
	got := map[string]bool{}
	for _, d := range drift {
		got[d.Probe] = true
	}
	for _, want := range []string{"call the kernel unfiltered", "gain privileges by a program", "share its ids with another sandbox", probeWritable} {
		if !got[want] {
			t.Errorf("%q was not noticed; drift is %v", want, drift)
		}
	}
	if left, err := filepath.Glob(scratchFile("*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func findings(allowed ...string) []Finding {
	var all []Finding
	for _, n := range Names() {
		f := Finding{Probe: n, Detail: "EPERM"}
		for _, a := range append(slices.Clone(basics), allowed...) {
			name, detail, _ := strings.Cut(a, "=")
			if name == n {
				f.Allowed, f.Detail = true, detail
			}
		}
		all = append(all, f)
	}
	return all
}

func TestDrift(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		grants   Grants
		findings []Finding
		want     string
	}{
		"as granted":                 {Grants{}, findings(), ""},
		"a wall is missing":          {Grants{}, findings("trace a process=allowed"), "it can trace a process (allowed), and was not granted that"},
		"the owner permits it":       {Grants{Permissions: []string{"trace a process"}}, findings("trace a process=allowed"), ""},
		"a granted node":             {Grants{Devices: []string{"/dev/a"}}, findings(probeNodes + "=/dev/a"), ""},
		"a node beside it":           {Grants{Devices: []string{"/dev/a"}}, findings(probeNodes + "=/dev/a /dev/b"), "it can use device nodes beyond the common ones (/dev/b), and was not granted that"},
		"a granted directory":        {Grants{Writable: []string{"/data"}}, findings(probeWritable + "=/data"), ""},
		"another directory":          {Grants{Writable: []string{"/data"}}, findings(probeWritable + "=/data /usr"), "it can write to other mounts than its own (/usr), and was not granted that"},
		"a detail of a hostile size": {Grants{}, findings("trace a process=" + strings.Repeat("x", 1000)), "it can trace a process (" + strings.Repeat("x", maxDetail) + "), and was not granted that"},
		"no filter on this kernel":   {Grants{}, findings("call the kernel unfiltered=Seccomp 0"), ""},
		"a filter that is not used":  {Grants{Seccomp: true}, findings("call the kernel unfiltered=Seccomp 0"), "it can call the kernel unfiltered (Seccomp 0), and was not granted that"},
		"the host's network":         {Grants{HostNetwork: true}, findings("see other interfaces than loopback=eth0"), ""},
		"a basic thing is missing": {Grants{}, slices.DeleteFunc(append(findings(), Finding{Probe: "write to /tmp", Detail: "EROFS"}), func(f Finding) bool {
			return f.Probe == "write to /tmp" && f.Allowed
		}), "it cannot write to /tmp (EROFS), and should"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, d := range c.grants.Drift(c.findings) {
				got = append(got, d.String())
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestAnIncompleteListIsRefused(t *testing.T) {
	t.Parallel()
	whole, err := json.Marshal(findings())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(bytes.NewReader(whole)); err != nil || len(got) != len(Names()) {
		t.Errorf("got %d findings, %v, want all", len(got), err)
	}
	short, err := json.Marshal(findings()[1:])
	if err != nil {
		t.Fatal(err)
	}
	swapped := findings()
	swapped[0], swapped[1] = swapped[1], swapped[0]
	other, err := json.Marshal(swapped)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"short": short, "in another order": other, "cut": whole[:len(whole)-3], "empty": nil, "endless": bytes.Repeat([]byte("["), maxFindings+1)} {
		if _, err := Parse(bytes.NewReader(raw)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	whole, err := json.Marshal(findings())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`[{"probe":"mount a file system","allowed":true}]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Parse(bytes.NewReader(raw))
		if err == nil && len(got) != len(Names()) {
			t.Errorf("got %d findings without an error", len(got))
		}
	})
}
