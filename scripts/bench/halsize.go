package main

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// sizeProgram is a program of HTTP, JSON in both directions and logs, with or without the two rooms.
const sizeProgram = `package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
%s)

func main() {
	slog.New(slog.NewTextHandler(os.Stderr, nil)).Info("size")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		var doc map[string]any
		_ = json.NewDecoder(r.Body).Decode(&doc)
		_ = json.NewEncoder(w).Encode(doc)
	})
%s	_ = http.ListenAndServe("127.0.0.1:0", nil)
}
`

const sizeUse = `	b, err := linux.NewBoard(linux.Config{})
	if err != nil {
		panic(err)
	}
	var cfg hal.Config
	_ = json.NewDecoder(os.Stdin).Decode(&cfg)
	list, _ := cfg.Resources()
	s, _ := hal.New(hal.ServerConfig{Resources: list, Backend: b})
	http.HandleFunc("/hal", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		grants, _ := hal.ParseGrants(nil)
		_ = s.Grant("m", grants)
		_, _ = s.Read(ctx, "m", "x", hal.ClassRead, 0)
		_, _ = s.Write(ctx, "m", "x", 1, 0, 0)
		_, _ = s.Transfer(ctx, "m", "x", nil, 0)
		_, _ = s.Batch(ctx, "m", nil, 0)
		_, _ = s.Watch(ctx, "m", "x", 0)
		_, _ = s.Acquire("m", nil, 0)
		_, _ = b.Scan(ctx, hal.TouchTheBus)
		s.Gone("m", "")
		_ = json.NewEncoder(w).Encode(s.List(""))
	})
	go s.Run(nil)
`

// halSize is what both rooms add to a stripped static arm64 program, in bytes of loaded sections, built as the device binary is.
func halSize(*pins, size) ([]row, error) {
	base, err := loaded(fmt.Sprintf(sizeProgram, "", ""))
	if err != nil {
		return nil, err
	}
	both, err := loaded(fmt.Sprintf(sizeProgram, "\n\t\"github.com/sandpiper-edge/sandpiper/hal\"\n\t\"github.com/sandpiper-edge/sandpiper/hal/linux\"\n", sizeUse))
	if err != nil {
		return nil, err
	}
	return []row{against("hal.size", "B", "lower", float64(both-base), 250_000, fmt.Sprintf("loaded sections of hal and hal/linux on arm64, beside a program of HTTP, JSON both ways and logs of %d", base))}, nil
}

// loaded builds a program in this module and sums its loaded sections.
func loaded(source string) (uint64, error) {
	dir, err := os.MkdirTemp(".", "halsize-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
		return 0, err
	}
	out := filepath.Join(dir, "program")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-gcflags=all=-l", "-ldflags=-s -w -funcalign=4", "-tags", "netgo osusergo nethttpomithttp2", "-o", out, "./"+dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build: %w: %s", err, text)
	}
	f, err := elf.Open(out)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	total := uint64(0)
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC != 0 && s.Type != elf.SHT_NOBITS {
			total += s.Size
		}
	}
	return total, nil
}
