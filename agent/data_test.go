package agent

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
)

func TestVolumesAreBoundedByTheManifestOrTheDevice(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED FOR LACK OF ROOT: no directory was bounded")
	}
	for name, c := range map[string]struct{ device, manifest, most int64 }{
		"the device":   {2 << 20, 0, 2 << 20},
		"the manifest": {2 << 20, 4 << 20, 4 << 20},
		"nobody":       {0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			a := &Agent{cfg: Config{StateDir: t.TempDir(), Modules: Modules{Data: Size(c.device)}}, log: slog.New(slog.NewTextHandler(&log, nil))}
			seat := supervisor.Seat{IDBase: 1 << 20, Module: deployment.Module{Name: "m", Settings: deployment.Settings{
				Data: c.manifest, Create: deployment.CreateOptions{Volumes: []deployment.Volume{{Name: "v", Target: "/v"}}},
			}}}
			defer func() {
				if err := a.releaseData("m"); err != nil {
					t.Error(err)
				}
			}()
			mounts, err := a.addData(nil, seat)
			if err != nil {
				t.Fatal(err)
			}
			last := mounts[len(mounts)-1]
			if last.Target != "/v" || !last.Writable {
				t.Fatalf("got %+v, want a writable /v", mounts)
			}
			if bytes.Contains(log.Bytes(), []byte("is not bounded")) {
				t.Skip("SKIPPED FOR LACK OF PROJECT QUOTAS AND mkfs.ext4: nothing is bounded here")
			}
			err = os.WriteFile(filepath.Join(last.Source, "full"), make([]byte, 8<<20), 0o600)
			var st unix.Stat_t
			if serr := unix.Stat(filepath.Join(last.Source, "full"), &st); serr != nil {
				t.Fatal(serr)
			}
			if (err != nil) != (c.most > 0) || c.most > 0 && st.Size > c.most {
				t.Errorf("got %d bytes, %v, want at most %d", st.Size, err, c.most)
			}
		})
	}
}
