package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// update is two releases of one module, as trees.
type update struct {
	name, what string
	old, next  string
	tier1      float64 // goals, as fractions of the full bundle; 0 = none
	tier2      float64
}

// deltaRows measures what an update costs over the network: bytes of bodies that the server sent, as a fraction of the whole bundle.
// Peers get the same two images. Bytes do not vary, so each is made once.
func deltaRows(size) ([]row, error) {
	work, err := os.MkdirTemp("", "sandpiper-bench-image-")
	if err != nil {
		return nil, err
	}
	rows, err := deltaPairs(work)
	return rows, errors.Join(err, os.RemoveAll(work))
}

func deltaPairs(work string) ([]row, error) {
	var rows []row
	pairs, missing, err := deltaFixtures(work)
	if err != nil {
		return nil, err
	}
	for _, name := range missing {
		rows = append(rows, row{Name: "image.delta/" + name, Unit: "of full", Better: "lower", Peer: goal, Note: "fixture missing: Debian's archive holds no two releases of libssl3, or cannot be reached"})
	}
	for _, p := range pairs {
		more, err := p.measure(filepath.Join(work, p.name))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// deltaFixtures makes the trees.
func deltaFixtures(work string) (pairs []update, missing []string, err error) {
	program, err := goPrograms(work)
	if err != nil {
		return nil, nil, err
	}
	pairs = append(pairs, program)
	trees := os.Getenv("IMAGE_FIXTURES")
	if trees == "" {
		return pairs, []string{"one-file/tier1", "one-file/tier2", "library/tier1", "library/tier2"}, nil
	}
	gateway := filepath.Join(trees, "gateway")
	changed := filepath.Join(work, "changed")
	if err := os.CopyFS(changed, os.DirFS(gateway)); err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"etc/mosquitto/mosquitto.conf", "etc/nginx/nginx.conf"} {
		conf := filepath.Join(changed, name)
		text, err := os.ReadFile(conf)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(conf, append(text, "\n# one line more, as a site has it\n"...), 0o644)
		}
		if err != nil {
			return nil, nil, err
		}
		break
	}
	pairs = append(pairs, update{"one-file", "a line in one configuration file of a gateway", gateway, changed, 0.015, 0.001})
	library := filepath.Join(trees, "library")
	if _, err := os.Stat(library); err != nil {
		return pairs, []string{"library/tier1", "library/tier2"}, nil
	}
	return append(pairs, update{"library", "a security release of libssl3 in a gateway", gateway, library, 0.06, 0.01}), nil, nil
}

// goPrograms builds one static program twice, the second time with one function changed.
func goPrograms(work string) (update, error) {
	p := update{name: "go-function", what: "one function of a static Go program", old: filepath.Join(work, "go-old"), next: filepath.Join(work, "go-new"), tier2: 0.05}
	const program = `package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"os"
)

var page = template.Must(template.New("").Parse("<p>{{.}}</p>"))

func limit(n int) int {
	%s
}

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _ = page.Execute(w, limit(len(r.URL.Path))) })
	http.HandleFunc("/json", func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(r.Header) })
	s := http.Server{Addr: ":8443", TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13}}
	fmt.Fprintln(os.Stderr, s.ListenAndServeTLS("a", "b"))
}
`
	for dir, body := range map[string]string{
		p.old:  "if n > 100 { return 100 }\n\treturn n",
		p.next: "if n < 0 { fmt.Println(\"a length below nothing\"); return 0 }\n\tif n > 200 { return 200 }\n\treturn n",
	} {
		src := dir + "-src"
		if err := errors.Join(os.MkdirAll(src, 0o755), os.MkdirAll(dir, 0o755)); err != nil {
			return p, err
		}
		if err := errors.Join(
			os.WriteFile(filepath.Join(src, "go.mod"), []byte("module example.com/server\n\ngo 1.24\n"), 0o644),
			os.WriteFile(filepath.Join(src, "main.go"), fmt.Appendf(nil, program, body), 0o644),
		); err != nil {
			return p, err
		}
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", filepath.Join(dir, "server"), ".")
		cmd.Dir, cmd.Env = src, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return p, fmt.Errorf("go build: %w: %s", err, out)
		}
	}
	return p, nil
}

// measure makes bundles of the trees, and has a device that has the old one fetch the new one.
func (p update) measure(work string) ([]row, error) {
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	at := func(name string) string { return filepath.Join(work, name) }
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bundler, fetcher := filepath.Join(filepath.Dir(self), "bench-bundle"), filepath.Join(filepath.Dir(self), "bench-fetcher")
	program := "/server"
	if p.name != "go-function" {
		program = "/bin/bash"
	}
	steps := [][]string{{bundler, "keygen", "-o", at("k.key")}}
	for i, tree := range []string{p.old, p.next} {
		spb := at([]string{"old.spb", "new.spb"}[i])
		steps = append(steps,
			[]string{bundler, "build", "-o", spb, "--name", "module", "--version", "1", "--sequence", fmt.Sprint(i + 1), "--arch", "any", "--arg", program, "--key", at("k.key"), tree},
			[]string{bundler, "extract", "--image", spb, at([]string{"old.img", "new.img"}[i])})
	}
	for _, args := range steps {
		if _, err := ranTool(args...); err != nil {
			return nil, err
		}
	}
	full, err := fileSize(at("new.spb"))
	if err != nil {
		return nil, err
	}
	var rows []row
	serve := at("www")
	if err := errors.Join(os.Mkdir(serve, 0o755), os.Link(at("new.spb"), filepath.Join(serve, "new.spb"))); err != nil {
		return nil, err
	}
	one, err := p.fetch(fetcher, at("dev1"), at("k.pub"), at("old.spb"), serve)
	if err != nil {
		return nil, err
	}
	if memory, err := ranTool(bundler, "delta", "-o", serve, at("old.spb"), at("new.spb")); err != nil {
		return nil, err
	} else {
		one.note += fmt.Sprintf("; making the delta %s", mebibytes(memory))
	}
	two, err := p.fetch(fetcher, at("dev2"), at("k.pub"), at("old.spb"), serve)
	if err != nil {
		return nil, err
	}
	casync := p.peer("casync", full, p.casync(work))
	xdelta := p.peer("xdelta3", full, p.xdelta(work))
	patch := p.peer("zstd-patch-from", full, p.patchFrom(work))
	for _, side := range []struct {
		tier  string
		ours  fetched
		goal  float64
		peers []row
	}{{"tier1", one, p.tier1, []row{casync}}, {"tier2", two, p.tier2, []row{xdelta, patch}}} {
		base := row{Name: "image.delta/" + p.name + "/" + side.tier, Unit: "of full", Better: "lower", Ours: float64(side.ours.bytes) / float64(full), Rounds: 1}
		note := fmt.Sprintf("%s: %d of %d bytes; device memory %s (%s)", p.what, side.ours.bytes, full, mebibytes(side.ours.memory), side.ours.note)
		if side.goal > 0 {
			r := base
			r.Peer, r.PeerValue, r.Ratio, r.Note = goal, side.goal, base.Ours/side.goal, note
			rows = append(rows, r)
		}
		for _, peer := range side.peers {
			r := base
			r.Peer, r.PeerValue, r.Note = peer.Peer, peer.PeerValue, peer.Note
			if r.PeerValue > 0 {
				r.Ratio, r.Note = r.Ours/r.PeerValue, note+"; "+peer.Peer+" "+peer.Note
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

// fetched is what a fetch took.
type fetched struct {
	bytes  int64
	memory int64 // peak resident bytes
	note   string
}

// fetch installs the old bundle from a file and then the new one from a web server, in processes of their own.
func (p update) fetch(fetcher, dir, pub, old, www string) (fetched, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fetched{}, err
	}
	var sent, requests atomic.Int64
	files := http.FileServer(http.Dir(www))
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("ETag", `"1"`)
		files.ServeHTTP(&countingWriter{w, &sent}, r)
	}))
	defer srv.Close()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		return fetched{}, err
	}
	abs, err := filepath.Abs(old)
	if err != nil {
		return fetched{}, err
	}
	if _, err := ranTool(fetcher, dir, pub, "", "file://"+abs); err != nil {
		return fetched{}, err
	}
	memory, err := ranTool(fetcher, dir, pub, ca, srv.URL+"/new.spb")
	return fetched{sent.Load(), memory, fmt.Sprintf("%d requests", requests.Load())}, err
}

type countingWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// peer runs a peer and returns its row's end.
func (p update) peer(name string, full int64, run func() (bytes, memory int64, err error)) row {
	program := strings.TrimSuffix(name, "-patch-from")
	if _, err := exec.LookPath(program); err != nil {
		return row{Peer: name, Note: "peer missing"}
	}
	bytes, memory, err := run()
	if err != nil {
		return row{Peer: name, Note: "peer missing: " + strings.Join(strings.Fields(err.Error()), " ")}
	}
	return row{Peer: name, PeerValue: float64(bytes) / float64(full), Note: fmt.Sprintf("%d bytes, %s to apply", bytes, mebibytes(memory))}
}

// casync cuts both images; what a device fetches is the index and the chunks it has not.
func (p update) casync(work string) func() (int64, int64, error) {
	return func() (int64, int64, error) {
		at := func(name string) string { return filepath.Join(work, name) }
		store := at("store")
		if _, err := ranTool("casync", "--chunk-size=32K", "--store="+store, "make", at("old.caibx"), at("old.img")); err != nil {
			return 0, 0, err
		}
		before, err := treeSize(store)
		if err != nil {
			return 0, 0, err
		}
		if _, err := ranTool("casync", "--chunk-size=32K", "--store="+store, "make", at("new.caibx"), at("new.img")); err != nil {
			return 0, 0, err
		}
		after, err := treeSize(store)
		if err != nil {
			return 0, 0, err
		}
		index, err := fileSize(at("new.caibx"))
		if err != nil {
			return 0, 0, err
		}
		memory, err := ranTool("casync", "--store="+store, "--seed="+at("old.img"), "extract", at("new.caibx"), at("casync.img"))
		return after - before + index, memory, err
	}
}

func (p update) xdelta(work string) func() (int64, int64, error) {
	return func() (int64, int64, error) {
		at := func(name string) string { return filepath.Join(work, name) }
		size, err := fileSize(at("old.img"))
		if err != nil {
			return 0, 0, err
		}
		window := fmt.Sprint(max(1<<20, min(size, 1<<31-1)))
		if _, err := ranTool("xdelta3", "-9", "-f", "-B", window, "-e", "-s", at("old.img"), at("new.img"), at("x.vcdiff")); err != nil {
			return 0, 0, err
		}
		n, err := fileSize(at("x.vcdiff"))
		if err != nil {
			return 0, 0, err
		}
		memory, err := ranTool("xdelta3", "-f", "-B", window, "-d", "-s", at("old.img"), at("x.vcdiff"), at("x.img"))
		return n, memory, err
	}
}

func (p update) patchFrom(work string) func() (int64, int64, error) {
	return func() (int64, int64, error) {
		at := func(name string) string { return filepath.Join(work, name) }
		if _, err := ranTool("zstd", "-q", "-f", "-9", "--long=31", "--patch-from="+at("old.img"), at("new.img"), "-o", at("x.zst")); err != nil {
			return 0, 0, err
		}
		n, err := fileSize(at("x.zst"))
		if err != nil {
			return 0, 0, err
		}
		memory, err := ranTool("zstd", "-q", "-f", "-d", "--long=31", "--memory=2048MB", "--patch-from="+at("old.img"), at("x.zst"), "-o", at("x.img"))
		return n, memory, err
	}
}

// ranTool runs a command below fetcher and returns its peak of resident bytes.
func ranTool(args ...string) (peak int64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	fetcher := filepath.Join(filepath.Dir(self), "bench-fetcher")
	if args[0] != fetcher {
		args = append([]string{fetcher, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	_, err = fmt.Sscan(string(out), &peak)
	return peak, err
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func treeSize(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
