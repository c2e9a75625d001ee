package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"text/tabwriter"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/effective"
)

// powers counts what a program can do in each side's sandbox as it comes, and prints all findings side by side.
func (y *yard) powers() ([]row, error) {
	root, err := y.powersRoot()
	if err != nil {
		return nil, err
	}
	sides := []struct {
		name, note string
		run        func() ([]byte, error)
	}{
		{"ours", "", func() ([]byte, error) { return y.powersOurs() }},
		{"crun", "as `crun spec` writes it", func() ([]byte, error) { return y.powersSpec("crun", root) }},
		{"runc", "as `runc spec` writes it", func() ([]byte, error) { return y.powersSpec("runc", root) }},
		{"podman", "podman's defaults, --network none", func() ([]byte, error) { return y.powersPodman(root) }},
		{"plain process", "root without a sandbox", func() ([]byte, error) { return exec.Command(y.starter, "probe").Output() }},
	}
	all := map[string][]effective.Finding{}
	var rows []row
	for _, s := range sides {
		r := row{Name: "module.powers", Unit: "probes", Better: "lower", Peer: s.name, Rounds: 1, Note: fmt.Sprintf("of %d probes allowed; %s", len(effective.Names()), s.note)}
		raw, err := s.run()
		var findings []effective.Finding
		if err == nil {
			findings, err = effective.Parse(bytes.NewReader(raw))
		}
		switch {
		case errors.Is(err, errMissing):
			r.Note = "peer missing"
		case err != nil:
			return nil, fmt.Errorf("powers: %s: %w: %s", s.name, err, stderrOf(err))
		default:
			all[s.name], r.PeerValue = findings, allowed(findings)
		}
		r.Ours = allowed(all["ours"])
		if r.PeerValue > 0 {
			r.Ratio = r.Ours / r.PeerValue
		}
		if s.name != "ours" {
			rows = append(rows, r)
		}
	}
	var names []string
	for _, s := range sides {
		if all[s.name] != nil {
			names = append(names, s.name)
		}
	}
	return rows, sideBySide(filepath.Join(filepath.Dir(y.starter), "powers.txt"), names, all)
}

var errMissing = errors.New("peer missing")

func stderrOf(err error) string {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(e.Stderr)
	}
	return ""
}

func allowed(findings []effective.Finding) float64 {
	n := 0.0
	for _, f := range findings {
		if f.Allowed {
			n++
		}
	}
	return n
}

// sideBySide writes the findings of all sides into a file, and those that differ to standard error.
func sideBySide(path string, names []string, all map[string][]effective.Finding) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	whole, short := tabwriter.NewWriter(f, 0, 0, 2, ' ', 0), tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	line := func(w io.Writer, first string, cell func(name string) string) {
		for _, n := range names {
			fmt.Fprintf(w, "%s\t", cell(n))
		}
		fmt.Fprintln(w, first)
	}
	for _, w := range []io.Writer{whole, short} {
		line(w, "PROBE", func(n string) string { return n })
	}
	for k, probe := range effective.Names() {
		differ := false
		cell := func(n string) string {
			d := all[n][k]
			differ = differ || d.Allowed != all[names[0]][k].Allowed
			if d.Allowed {
				return "ALLOWED"
			}
			return "refused"
		}
		line(whole, probe, func(n string) string { return cell(n) + " " + all[n][k].Detail })
		if differ {
			line(short, probe, cell)
		}
	}
	return errors.Join(whole.Flush(), short.Flush())
}

// powersRoot is an image with nothing in it but the program.
func (y *yard) powersRoot() (string, error) {
	root := filepath.Join(y.dir, "powers")
	for _, d := range []string{"proc", "sys", "dev", "tmp", "run", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	raw, err := os.ReadFile(y.starter)
	if err != nil {
		return "", err
	}
	return root, os.WriteFile(filepath.Join(root, "starter"), raw, 0o755)
}

func (y *yard) powersOurs() ([]byte, error) {
	s := sandbox.Spec{
		ID: "powers", Args: []string{"/starter", "probe"}, IDBase: 1 << 30, Limits: sandbox.Limits{Memory: 64 << 20, CPU: 1000},
		Root: sandbox.Root{Kind: sandbox.Image, Image: filepath.Join(y.dir, "powers")}, LogPath: filepath.Join(y.dir, "powers.log"),
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return exec.Command(y.starter, "output", filepath.Join(y.dir, "run-powers"), string(spec)).Output()
}

// powersSpec runs the program as the runtime's own `spec` would have it.
func (y *yard) powersSpec(name, root string) ([]byte, error) {
	command, missing := y.peer(name)
	if missing != "" {
		return nil, errMissing
	}
	dir := filepath.Join(y.dir, "powers-"+name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	made := command("spec")
	made.Dir = dir
	if out, err := made.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	file := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, err
	}
	process, _ := spec["process"].(map[string]any)
	if process == nil {
		return nil, fmt.Errorf("%s has no process", file)
	}
	process["terminal"], process["args"] = false, []string{"/starter", "probe"}
	spec["root"] = map[string]any{"path": root, "readonly": true}
	if raw, err = json.Marshal(spec); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return nil, err
	}
	return command("--root", filepath.Join(y.dir, name), "run", "--bundle", dir, "powers-"+name).Output()
}

func (y *yard) powersPodman(root string) ([]byte, error) {
	command, missing := y.peer("podman")
	if missing != "" {
		return nil, errMissing
	}
	cmd := command("run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--security-opt", "seccomp="+filepath.Join(y.peers, "usr/share/containers/seccomp.json"), "--rootfs", root, "/starter", "probe")
	cmd.Env = append(cmd.Env, y.podmanEnv()...)
	return cmd.Output()
}
