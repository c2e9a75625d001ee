package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// module is one of the four of the demo.
type module struct {
	name     string
	kind     string   // native or sandbox
	args     []string // of the bundle
	memory   string
	hostView bool
	env      []string
	period   int // milliseconds between two messages; 0 = the module's own
}

// buildBundles makes, builds and signs a bundle for each module whose packages are there.
func (s *stage) buildBundles(ctx context.Context) error {
	key := filepath.Join(s.work, "release.key")
	if _, err := s.tool(ctx, "sandpiper-bundle", "keygen", "-o", key); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.work, "bundles"), 0o755); err != nil {
		return err
	}
	type candidate struct {
		module
		fill func(dir string) error // nil: --go
	}
	copyTree := func(name string) func(string) error {
		return func(dir string) error { return os.CopyFS(dir, os.DirFS(filepath.Join(s.source, name))) }
	}
	list := []candidate{
		{module{name: "shell", kind: "native", args: []string{"/bin/sh", "/app/main.sh"}, hostView: true}, copyTree("shell")},
		{module{name: "gauge", kind: "sandbox"}, nil},
	}
	node := filepath.Join(s.sdk, "node", "node_modules")
	if _, err := os.Stat(filepath.Join(node, "azure-iot-device-mqtt")); err != nil {
		s.leftOut = append(s.leftOut, "javascript: "+s.absent(node, "the npm packages azure-iot-device and azure-iot-device-mqtt"))
	} else {
		list = append(list, candidate{module{name: "javascript", kind: "native", args: []string{"/usr/bin/node", "/app/main.js"}, memory: "256MiB", hostView: true}, func(dir string) error {
			return errors.Join(copyTree("javascript")(dir), copyPackages(node, filepath.Join(dir, "node_modules"), "azure-iot-device", "azure-iot-device-mqtt"))
		}})
	}
	python := filepath.Join(s.sdk, "python")
	if _, err := os.Stat(filepath.Join(python, "azure", "iot", "device")); err != nil {
		s.leftOut = append(s.leftOut, "python: "+s.absent(python, "the package azure-iot-device"))
	} else {
		list = append(list, candidate{module{name: "python", kind: "native", args: []string{"/usr/bin/python3", "-u", "/app/main.py"}, hostView: true, env: []string{"PYTHONPATH=/app/packages", "PYTHONDONTWRITEBYTECODE=1"}}, func(dir string) error {
			return errors.Join(copyTree("python")(dir), os.CopyFS(filepath.Join(dir, "packages"), os.DirFS(python)))
		}})
	}
	for _, c := range list {
		args := []string{"build", "-o", s.bundle(c.name), "--name", c.name, "--version", "1.0.0", "--sequence", "1", "--key", key}
		for _, a := range c.args {
			args = append(args, "--arg", a)
		}
		for _, e := range c.env {
			args = append(args, "--env", e)
		}
		if c.hostView {
			args = append(args, "--host-view")
		}
		if c.fill == nil {
			args = append(args, "--go", "./scripts/demo/modules/"+c.name)
		} else {
			dir := filepath.Join(s.work, "files", c.name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := c.fill(dir); err != nil {
				return fmt.Errorf("files of %s: %w", c.name, err)
			}
			args = append(args, dir)
		}
		if _, err := s.tool(ctx, "sandpiper-bundle", args...); err != nil {
			return err
		}
		s.modules = append(s.modules, c.module)
	}
	for _, left := range s.leftOut {
		s.say("LEFT OUT: %s", left)
	}
	return nil
}

func (s *stage) bundle(name string) string { return filepath.Join(s.work, "bundles", name+".spb") }

// absent says why packages are not in folder, and what to do.
func (s *stage) absent(folder, what string) string {
	if _, err := os.Stat(s.sdk); err != nil {
		return what + ": " + s.sdk + " is not there; run `make setup` first"
	}
	return what + ": not in " + folder + "; `make setup` said why when it could not bring them"
}
