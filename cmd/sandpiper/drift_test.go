package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// driftOf is what the reported twin says of a module's sandbox.
func (d *device) driftOf(module string) (drift []string, status, why string) {
	d.t.Helper()
	twin, err := d.client().Twin(d.t.Context(), "$edgeAgent")
	if err != nil {
		d.t.Fatal(err)
	}
	var whole struct {
		Reported struct {
			Modules map[string]struct {
				Drift                            []string
				RuntimeStatus, StatusDescription string
			}
		}
	}
	if err := json.Unmarshal(twin, &whole); err != nil {
		d.t.Fatal(err)
	}
	m := whole.Reported.Modules[module]
	return m.Drift, m.RuntimeStatus, m.StatusDescription
}

// expectProblem is one that status names.
func (d *device) expectProblem(what string) {
	d.t.Helper()
	if st, err := d.client().Status(d.t.Context()); err != nil || !strings.Contains(strings.Join(st.Problems, "\n"), what) {
		d.t.Errorf("got %q, %v, want %s among the problems", st.Problems, err, what)
	}
}

// TestDriftIsReportedAndWithStrictRefused: somebody mounts something below a module's data directory, so that the module can write where
// nobody granted it to.
func TestDriftIsReportedAndWithStrictRefused(t *testing.T) {
	t.Parallel()
	const drift = "it can write to other mounts than its own (/data/more), and was not granted that"
	for name, strict := range map[string]bool{"without strict it is reported": false, "with strict it is refused": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDevice(t, fmt.Sprintf("[modules]\nstrict = %v\n", strict))
			image := d.bundle("m", `while :; do sleep 1; done`)
			want := withSettings(t, manifest(map[string]string{}, map[string]string{"m": image}), "m", "always", map[string]any{"data": 1 << 20})
			if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
				t.Fatal(err)
			}
			d.untilRunning("m")
			if got, _, _ := d.driftOf("m"); len(got) != 0 {
				t.Fatalf("before: got %q, want no drift", got)
			}
			more := filepath.Join(d.path("state/modules/m/data"), "more")
			if err := os.Mkdir(more, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", more, "tmpfs", 0, "size=64k"); err != nil {
				t.Fatal(err)
			}
			mounted := true
			gone := func() {
				if mounted {
					mounted = false
					if err := unix.Unmount(more, unix.MNT_DETACH); err != nil {
						t.Error(err)
					}
				}
			}
			defer gone()
			_, _, code := d.run("", "module", "restart", "m")
			if strict {
				if code == 0 {
					t.Error("restart: got code 0, want a refusal")
				}
				d.expectWhy("m", "modules.strict", drift)
				d.until("the refusal is reported", func() (bool, string) {
					got, status, why := d.driftOf("m")
					return fmt.Sprint(got) == "["+drift+"]" && status == "backoff" && strings.Contains(why, "modules.strict"), fmt.Sprint(got, status, why)
				})
				if st, err := d.client().Status(t.Context()); err != nil || st.Modules[0].Pid != 0 {
					t.Errorf("got %+v, %v, want no process", st.Modules, err)
				}
			} else {
				if code != 0 {
					t.Errorf("restart: got code %d, want 0", code)
				}
				d.untilRunning("m")
				if out, _, _ := d.run("", "module", "inspect", "m", "--effective"); !strings.Contains(out, drift) {
					t.Errorf("got %s, want %s", out, drift)
				}
				d.until("it is reported", func() (bool, string) {
					got, status, _ := d.driftOf("m")
					return fmt.Sprint(got) == "["+drift+"]" && status == "running", fmt.Sprint(got, status)
				})
				d.expectProblem(drift)
				before := d.agentPid(0)
				if err := unix.Kill(before, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				d.agentPid(before) // the next agent
				d.untilRunning("m")
				d.expectProblem(drift)
				if got, _, _ := d.driftOf("m"); fmt.Sprint(got) != "["+drift+"]" {
					t.Errorf("after a kill of the agent: got %q, want what the probe found", got)
				}
			}
			gone()
			_, _, _ = d.run("", "module", "restart", "m") // its backoff may have started it meanwhile
			d.untilRunning("m")
			if !strict {
				_, _, _ = d.run("", "module", "inspect", "m", "--effective")
			}
			d.until("it is reported no more", func() (bool, string) {
				got, status, _ := d.driftOf("m")
				return len(got) == 0 && status == "running", fmt.Sprint(got, status)
			})
		})
	}
}
