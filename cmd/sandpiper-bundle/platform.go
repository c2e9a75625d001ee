package main

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// platform is what the flags say, or what the executables in the tree are for.
func (f *buildFlags) platform(tree fileTree) (bundle.Platform, error) {
	p := bundle.Platform{OS: "linux", Arch: f.arch, Variant: f.variant, Kernel: f.kernel}
	if p.Arch == "auto" {
		if f.goPackage != "" {
			p.Arch = f.goArch()
		} else {
			found, err := machines(tree)
			if err != nil {
				return p, err
			}
			switch len(found) {
			case 0:
				p.Arch = bundle.AnyArch
			case 1:
				p.Arch = found[0]
			default:
				return p, fmt.Errorf("it holds programs for %s: say --arch, or remove those that are not for it", strings.Join(found, " and "))
			}
		}
	}
	if p.Arch == "arm" && p.Variant == "" {
		p.Variant = "v7"
	}
	return p, nil
}

func (f *buildFlags) goArch() string {
	if f.arch == "auto" {
		if env := os.Getenv("GOARCH"); env != "" {
			return env
		}
		return runtime.GOARCH
	}
	return f.arch
}

// machines lists the processors that ELF files in the tree are for, by Go's names.
func machines(tree fileTree) ([]string, error) {
	var found []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		file, err := tree.Open(name)
		if err != nil {
			return err
		}
		var head [20]byte
		_, err = io.ReadFull(file, head[:])
		if cerr := file.Close(); err == nil {
			err = cerr
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil // shorter than any program
		}
		if err != nil {
			return err
		}
		if arch := machine(head); arch != "" && !slices.Contains(found, arch) {
			found = append(found, arch)
		}
		return nil
	})
	slices.Sort(found)
	return found, err
}

// machine reads the start of an ELF file; "" is for every other file.
func machine(head [20]byte) string {
	if string(head[:4]) != elf.ELFMAG {
		return ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	switch m := elf.Machine(order.Uint16(head[18:])); m {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_386:
		return "386"
	case elf.EM_ARM:
		return "arm"
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_RISCV:
		return "riscv64"
	default:
		return strings.ToLower(strings.TrimPrefix(m.String(), "EM_"))
	}
}

// compile builds the Go package into a copy of dir (or an empty one) and returns that directory. The program is named after the
// package and becomes the module's first argument unless one was given.
func (f *buildFlags) compile(ctx context.Context, dir, work string, m *bundle.Manifest) (string, error) {
	root := filepath.Join(work, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	if dir != "" {
		if err := os.CopyFS(root, os.DirFS(dir)); err != nil {
			return "", fmt.Errorf("copy %s: %w", dir, err)
		}
	}
	name := path.Base(filepath.ToSlash(filepath.Clean(f.goPackage)))
	if name == "." || name == ".." {
		name = f.name
	}
	// An absolute path: the compiler runs in the caller's directory, work may be relative.
	program, err := filepath.Abs(filepath.Join(root, name))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", program, f.goPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+f.goArch())
	if n, ok := strings.CutPrefix(f.variant, "v"); ok && f.goArch() == "arm" {
		cmd.Env = append(cmd.Env, "GOARM="+n)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w: %s", f.goPackage, err, out)
	}
	if len(m.Runtime.Args) == 0 {
		place := "/"
		if m.Runtime.HostView {
			place = "/app/"
		}
		m.Runtime.Args = []string{place + name}
	}
	return root, nil
}
