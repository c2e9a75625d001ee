package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// copyPackages copies the named npm packages and all they depend on from one node_modules folder into another: a bundle
// holds what the module needs and not what the tests need too.
func copyPackages(from, to string, names ...string) error {
	done := map[string]bool{}
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		if done[name] {
			continue
		}
		done[name] = true
		dir := filepath.Join(from, name)
		raw, err := os.ReadFile(filepath.Join(dir, "package.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // nested inside the package that wants it, or optional on this system
		}
		if err != nil {
			return err
		}
		var pack struct {
			Dependencies         map[string]string
			OptionalDependencies map[string]string
		}
		if err := json.Unmarshal(raw, &pack); err != nil {
			return fmt.Errorf("package %s: %w", name, err)
		}
		if err := os.CopyFS(filepath.Join(to, name), os.DirFS(dir)); err != nil {
			return fmt.Errorf("package %s: %w", name, err)
		}
		for _, more := range []map[string]string{pack.Dependencies, pack.OptionalDependencies} {
			for next := range more {
				names = append(names, next)
			}
		}
		nested, err := filepath.Glob(filepath.Join(dir, "node_modules", "*", "package.json"))
		if err != nil {
			return err
		}
		for _, file := range nested {
			raw, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			pack.Dependencies = nil
			if err := json.Unmarshal(raw, &pack); err != nil {
				return fmt.Errorf("package %s: %w", file, err)
			}
			for next := range pack.Dependencies {
				names = append(names, next)
			}
		}
	}
	return nil
}
