package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// podman runs the module of a bundle with its own command line: it takes no config.json, so its flags are read from that.
func (y *yard) podman(bundle string) (peer, error) {
	p := peer{name: "podman", note: "crun below it; --rootfs, --network none, the same binds, ids, limits and seccomp filter"}
	command, missing := y.peer("podman")
	if p.missing = missing; missing != "" {
		return p, nil
	}
	args, err := y.podmanArgs(bundle)
	if err != nil {
		return p, err
	}
	p.run = func() (float64, error) {
		cmd := command(args...)
		cmd.Env = append(cmd.Env, y.podmanEnv()...)
		return timed(cmd)
	}
	return p, nil
}

// podmanEnv keeps podman to folders of this run's own.
func (y *yard) podmanEnv() []string {
	home := filepath.Join(y.dir, "podman")
	return []string{
		"CONTAINERS_CONF=" + filepath.Join(home, "containers.conf"), "CONTAINERS_STORAGE_CONF=" + filepath.Join(home, "storage.conf"),
		"XDG_RUNTIME_DIR=" + filepath.Join(home, "run"),
	}
}

// podmanHome writes the configuration of podman, and programs that find their libraries.
func (y *yard) podmanHome() error {
	home := filepath.Join(y.dir, "podman")
	if err := os.MkdirAll(filepath.Join(home, "run"), 0o700); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"containers.conf": fmt.Sprintf("[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"none\"\nruntime=\"crun\"\nconmon_path=[%q]\n[engine.runtimes]\ncrun=[%q]\n",
			filepath.Join(home, "conmon"), filepath.Join(home, "crun")),
		"storage.conf": fmt.Sprintf("[storage]\ndriver=\"vfs\"\ngraphroot=%q\nrunroot=%q\n", filepath.Join(home, "graph"), filepath.Join(home, "state")),
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	for _, program := range []string{"conmon", "crun"} { // they hand no environment on, and would not find their libraries
		text := fmt.Sprintf("#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s \"$@\"\n", strings.Join(y.libraries(), ":"), filepath.Join(y.peers, "usr/bin", program))
		if err := os.WriteFile(filepath.Join(home, program), []byte(text), 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (y *yard) podmanArgs(bundle string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	var spec struct {
		Root   struct{ Path string }
		Mounts []struct {
			Destination, Source string
			Options             []string
		}
		Process struct{ Cwd string }
		Linux   struct{ Seccomp json.RawMessage }
	}
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, err
	}
	if err := y.podmanHome(); err != nil {
		return nil, err
	}
	home := filepath.Join(y.dir, "podman")
	if err := os.WriteFile(filepath.Join(home, "seccomp.json"), spec.Linux.Seccomp, 0o600); err != nil {
		return nil, err
	}
	args := []string{
		"run", "--rm", "--network", "none", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges",
		"--security-opt", "seccomp=" + filepath.Join(home, "seccomp.json"), "--uidmap", "0:1073741824:65536", "--gidmap", "0:1073741824:65536",
		"--memory", "64m", "--pids-limit", "256", "--cpus", "1", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--log-driver", "none", "--workdir", spec.Process.Cwd,
	}
	for _, m := range spec.Mounts {
		if slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			args = append(args, "--volume", strings.Join([]string{m.Source, m.Destination, "ro"}, ":"))
		}
	}
	return append(args, "--rootfs", spec.Root.Path, "/bin/true"), nil
}
