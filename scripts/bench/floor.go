package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// floorContest is the smallest memory limit, in bytes, at which a static program starts and ends with code 0.
func (y *yard) floorContest() (contest, error) {
	s := y.module("/app/hello")
	own, err := y.serve("floor", s, warm)
	if err != nil {
		return contest{}, err
	}
	dir, err := y.bundle("floor", s)
	if err != nil {
		return contest{}, err
	}
	c := contest{name: "module.memory-floor", unit: "bytes", better: "lower", ours: func() (float64, error) {
		return floor(func(limit int64) error { _, err := own.start(limit); return err })
	}}
	for _, name := range []string{"runc", "crun"} {
		command, missing := y.peer(name)
		n := 0
		c.peers = append(c.peers, peer{name: name, missing: missing, note: "a static program of no library; steps of 64 KiB, each limit twice", run: func() (float64, error) {
			return floor(func(limit int64) error {
				if err := setLimit(filepath.Join(dir, "config.json"), limit); err != nil {
					return err
				}
				n++
				id, root := fmt.Sprintf("floor-%s-%d", name, n), filepath.Join(y.dir, name)
				_, err := timed(command("--root", root, "run", "--bundle", dir, id))
				if err != nil {
					_ = command("--root", root, "delete", "--force", id).Run() // what a start that died left
				}
				return err
			})
		}})
	}
	return c, nil
}

// floor searches between 64 KiB and 64 MiB.
func floor(start func(limit int64) error) (float64, error) {
	const step = 64 << 10
	low, high := int64(0), int64(1024) // in steps: low does not work, high does
	if err := start(high * step); err != nil {
		return 0, err
	}
	for high-low > 1 {
		middle := (low + high) / 2
		if start(middle*step) == nil && start(middle*step) == nil {
			high = middle
		} else {
			low = middle
		}
	}
	return float64(high * step), nil
}

// setLimit rewrites the memory limit of a bundle.
func setLimit(file string, limit int64) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	linux, _ := spec["linux"].(map[string]any)
	resources, _ := linux["resources"].(map[string]any)
	if resources == nil {
		return fmt.Errorf("%s has no linux.resources", file)
	}
	resources["memory"] = map[string]any{"limit": limit, "swap": limit}
	if raw, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o644)
}
