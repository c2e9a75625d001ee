package container

import (
	"fmt"
	"os"
	"slices"
	"sort"

	"github.com/opencontainers/runc/libcontainer/exeseal"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// seal opens this binary for the processes of new sandboxes, such that nothing
// in one can write to it (CVE-2019-5736). Through overlayfs that costs nothing
// and the file is kept; else it is a copy in memory, made for each start.
func (r *Runtime) seal() (exe *os.File, done func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exe != nil {
		return r.exe, func() {}, nil
	}
	f, err := exeseal.CloneSelfExe(r.cfg.StateDir)
	if err == nil && !exeseal.IsCloned(f) {
		// The process is nobody in particular when it executes the file.
		var st os.FileInfo
		if st, err = f.Stat(); err == nil && st.Mode()&0o001 == 0 {
			_ = f.Close()
			f, err = copySelf(r.cfg.StateDir)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("seal %s: %w", os.Args[0], err)
	}
	if exeseal.IsCloned(f) {
		return f, func() { _ = f.Close() }, nil
	}
	r.exe = f
	return f, func() {}, nil
}

// copySelf is this binary in memory, which everybody may execute.
func copySelf(dir string) (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	st, err := self.Stat()
	if err != nil {
		return nil, err
	}
	return exeseal.CloneBinary(self, st.Size(), "sandpiper", dir)
}

// filter compiles the seccomp filter of some permissions, the first time.
func (r *Runtime) filter(permissions []sandbox.Permission) ([]unix.SockFilter, error) {
	if !r.features.Seccomp {
		return nil, nil
	}
	sorted := slices.Clone(permissions)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	key := fmt.Sprint(slices.Compact(sorted))
	r.mu.Lock()
	defer r.mu.Unlock()
	if program, ok := r.programs[key]; ok {
		return program, nil
	}
	program, err := compile(seccompFilter(sorted))
	if err != nil {
		return nil, err
	}
	if r.programs == nil {
		r.programs = map[string][]unix.SockFilter{}
	}
	r.programs[key] = program // there are as many as sets of permissions
	return program, nil
}
