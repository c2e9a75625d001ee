package supervisor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDocumentsOfForm1 holds the form on disk still: an agent that cannot read these files stops every module of the device.
func TestDocumentsOfForm1(t *testing.T) {
	t.Parallel()
	img := Image{Digest: "sha256:00", Args: []string{"/bin/m", "-v"}, Env: []string{"A=1"}, Cwd: "/w", User: "7:8", Stop: "SIGINT"}
	for name, value := range map[string]any{
		"applied": applied{V: recordVersion, Version: 4, Desired: json.RawMessage(`{"schemaVersion":"1.1"}`), Images: map[string]Image{"m": img}},
		"record": record{
			V: recordVersion, Hash: "abc", Order: 7, Image: img, Stop: "SIGINT", Proven: true, Unproven: 2, Boot: "b",
			decision: decision{Held: true, Ended: true, Failures: 3, Renew: noon}, Restarts: 4, Began: noon, Exited: noon.Add(time.Second), Exit: 9, Why: "ended with exit code 9",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".v1.json")
			if *update {
				if err := os.WriteFile(path, append(raw, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || string(raw)+"\n" != string(want) {
				t.Errorf("%s, %v:\ngot  %s\nwant %s", path, err, raw, want)
			}
		})
	}
}

func TestDocumentsThatCannotBeReadEndRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ key, doc, want string }{
		"torn record":   {recordPrefix + "m", `{"v":1,`, "read supervisor/module/m: unexpected end of JSON input"},
		"later record":  {recordPrefix + "m", `{"v":2}`, "read supervisor/module/m: it has form 2, want at most 1; update the agent"},
		"torn applied":  {appliedKey, `x`, "read supervisor/applied: invalid character"},
		"range of ids":  {rangePrefix + "m", `"x"`, "read supervisor/ids/m: json"},
		"later applied": {appliedKey, `{"v":9}`, "update the agent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDevice(t)
			d.docs.docs[c.key] = []byte(c.doc)
			s := &Supervisor{cfg: Config{Docs: d.docs, IDBase: 1 << 20}}
			_, err := s.records()
			if err == nil {
				_, err = s.loadApplied()
			}
			if err == nil {
				_, err = s.idBase(t.Context(), "m")
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}
