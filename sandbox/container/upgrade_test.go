package container_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// replace puts another file in the place of a binary, as an update does.
func replace(t *testing.T, path, text string) {
	t.Helper()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	settled(t, tmp)
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func TestAnAgentThatDiesAfterAnUpgradeIsReplacedByTheOneBefore(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"that dies at once":            "#!/bin/sh\nexit 1\n",
		"that is killed":               "#!/bin/sh\nkill -9 $$\n",
		"that refuses what it is told": "#!/bin/sh\nexit 2\n",
		"that is no program":           "neither",
		"that hangs":                   "#!/bin/sh\nexec sleep 1000\n",
		"that says nothing any more":   "#!/usr/bin/env python3\nimport os, socket, time\nsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\ntime.sleep(1000)\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			path := filepath.Join(dir, "agent")
			if err := os.Link(self, path); err != nil {
				raw, err := os.ReadFile(self)
				if err != nil {
					t.Fatal(err)
				}
				replace(t, path, string(raw))
			}
			h := newHousehold(t, `sleep 1000`, envBinary+"="+path, envHang+"=4s")
			first := h.next("started")
			replace(t, path, bad)
			if err := h.warden.Process.Signal(container.SignalLeave); err != nil {
				t.Fatal(err)
			}
			h.next("leaves")
			again := h.next("recovered")
			if again[0] == first[0] || again[1] != first[1] || again[2] != first[2] {
				t.Errorf("recovered agent, pid, start: got %v, was %v", again, first)
			}
			was, err := os.Stat(self)
			if err != nil {
				t.Fatal(err)
			}
			if now, err := os.Stat(path); err != nil || now.Size() != was.Size() || now.Mode().Perm()&0o100 == 0 {
				t.Errorf("the file: got %v, %v, want the one before back in its place", now, err)
			}
			if _, err := os.Stat(path + ".back"); !os.IsNotExist(err) {
				t.Errorf("something is left behind: %v", err)
			}
		})
	}
}

func TestAnAgentThatLivesAfterAnUpgradeIsKept(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(openDir(t), "agent")
	replace(t, path, string(raw))
	h := newHousehold(t, `sleep 1000`, envBinary+"="+path, envTrial+"=10ms") // and as long to be well as it takes
	h.next("started")
	replace(t, path, string(raw)+"\n")
	for range 2 {
		if err := h.warden.Process.Signal(container.SignalLeave); err != nil {
			t.Fatal(err)
		}
		h.next("leaves")
		h.next("recovered")
	}
	if now, err := os.Stat(path); err != nil || now.Size() != int64(len(raw))+1 {
		t.Errorf("the file: got %v, %v, want the new one", now, err)
	}
}
