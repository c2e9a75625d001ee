package oci

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Config is what an image says about running it.
type Config struct {
	Platform   Platform          `json:"platform"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	Env        []string          `json:"env,omitempty"` // NAME=value
	Cwd        string            `json:"cwd,omitempty"`
	User       string            `json:"user,omitempty"` // user or user:group, names or numbers
	Stop       string            `json:"stop_signal,omitempty"`
	Ports      []string          `json:"ports,omitempty"`   // "8080/tcp": what it listens on; nothing is published
	Volumes    []string          `json:"volumes,omitempty"` // directories it wants to keep
	Labels     map[string]string `json:"labels,omitempty"`
	Health     *Health           `json:"health,omitempty"`
	DiffIDs    []Digest          `json:"-"` // of the plain layers, lowest first
}

// Health is the image's own check (HEALTHCHECK), as the image writes it: zero, and what is below it, is Docker's default.
type Health struct {
	Test          []string      `json:"test"`               // the kind, CMD or CMD-SHELL, and what is run
	Shell         []string      `json:"shell,omitempty"`    // that a CMD-SHELL is given to; empty = /bin/sh -c
	Interval      time.Duration `json:"interval,omitempty"` // nanoseconds, as Docker writes them
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"start_period,omitempty"`
	StartInterval time.Duration `json:"start_interval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// Args are the program and arguments of the check; none when it is of a kind that Docker does not run either.
func (h Health) Args() []string {
	switch {
	case len(h.Test) < 2 || h.Test[1] == "":
	case h.Test[0] == "CMD":
		return h.Test[1:]
	case h.Test[0] == "CMD-SHELL" && len(h.Shell) > 0:
		return slices.Concat(h.Shell, h.Test[1:])
	case h.Test[0] == "CMD-SHELL":
		return append([]string{"/bin/sh", "-c"}, h.Test[1:]...)
	}
	return nil
}

// configFile is the part of an image's config that is read.
type configFile struct {
	Platform
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []Digest `json:"diff_ids"`
	} `json:"rootfs"`
	Config struct {
		User         string              `json:"User"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Env          []string            `json:"Env"`
		Entrypoint   []string            `json:"Entrypoint"`
		Cmd          []string            `json:"Cmd"`
		Volumes      map[string]struct{} `json:"Volumes"`
		WorkingDir   string              `json:"WorkingDir"`
		Labels       map[string]string   `json:"Labels"`
		StopSignal   string              `json:"StopSignal"`
		Healthcheck  *struct {
			Test                                          []string
			Interval, Timeout, StartPeriod, StartInterval time.Duration
			Retries                                       int
		} `json:"Healthcheck"`
		Shell []string `json:"Shell"`
	} `json:"config"`
}

const (
	maxWords = 1024  // elements of a list in a config
	maxWord  = 32768 // bytes of one
)

// ParseConfig reads an image's config, whose digest the caller has compared.
func ParseConfig(text []byte) (Config, error) {
	var f configFile
	if len(text) > maxDocument {
		return Config{}, bundle.Reject(bundle.ErrOCI, "a config of %d bytes, up to %d are read", len(text), maxDocument)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return Config{}, &bundle.Error{Code: bundle.ErrOCI, Why: fmt.Sprintf("the config is malformed: %v: build the image again", err), Err: err}
	}
	c := Config{
		Platform: f.Platform, Entrypoint: f.Config.Entrypoint, Cmd: f.Config.Cmd, Env: f.Config.Env, Cwd: f.Config.WorkingDir, User: f.Config.User,
		Stop: f.Config.StopSignal, Ports: slices.Sorted(maps.Keys(f.Config.ExposedPorts)), Volumes: slices.Sorted(maps.Keys(f.Config.Volumes)),
		Labels: f.Config.Labels, DiffIDs: f.RootFS.DiffIDs,
	}
	if h := f.Config.Healthcheck; h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" {
		c.Health = &Health{
			Test: h.Test, Shell: f.Config.Shell, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return c.checked(f.RootFS.Type)
}

func (c Config) checked(rootType string) (Config, error) {
	bad := func(format string, args ...any) (Config, error) {
		return Config{}, bundle.Reject(bundle.ErrOCI, "the config "+format+": build the image again", args...)
	}
	if rootType != "layers" {
		return bad("describes a root of type %.40q, want layers", rootType)
	}
	if len(c.DiffIDs) > maxLayers {
		return bad("lists %d layers, up to %d are read", len(c.DiffIDs), maxLayers)
	}
	labels := slices.AppendSeq(slices.Collect(maps.Keys(c.Labels)), maps.Values(c.Labels))
	lists := [][]string{c.Entrypoint, c.Cmd, c.Env, c.Ports, c.Volumes, labels, {c.Cwd, c.User, c.Stop}}
	if c.Health != nil {
		lists = append(lists, c.Health.Test, c.Health.Shell)
	}
	for _, list := range lists {
		if len(list) > maxWords {
			return bad("has a list of %d elements, up to %d are read", len(list), maxWords)
		}
		for _, word := range list {
			if len(word) > maxWord || strings.ContainsRune(word, 0) {
				return bad("has a text of %d bytes or with a NUL, up to %d are read", len(word), maxWord)
			}
		}
	}
	for _, entry := range c.Env {
		if name, _, ok := strings.Cut(entry, "="); !ok || name == "" {
			return bad("has an environment entry %.40q, want NAME=value", entry)
		}
	}
	if c.Cwd != "" {
		c.Cwd = path.Clean("/" + c.Cwd) // Docker takes a relative one as below the root
	}
	for i, v := range c.Volumes {
		if c.Volumes[i] = path.Clean("/" + v); c.Volumes[i] == "/" {
			return bad("wants its root as a volume")
		}
	}
	return c, nil
}
