//go:build seccomp

package container

import (
	"testing"

	"github.com/opencontainers/runc/libcontainer/configs"
	libseccomp "github.com/seccomp/libseccomp-golang"
)

func TestSeccompKnowsEveryName(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range seccompFilter(nil).Syscalls {
		if _, err := libseccomp.GetSyscallFromName(c.Name); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if seen[c.Name] && len(c.Args) == 0 {
			t.Errorf("%s: twice", c.Name)
		}
		seen[c.Name] = true
		if c.Action == configs.Allow {
			for _, no := range []string{"mount", "ptrace", "bpf", "keyctl", "unshare", "setns", "io_uring_setup", "init_module", "socketcall", "clone3"} {
				if c.Name == no {
					t.Errorf("%s is allowed", no)
				}
			}
		}
	}
}
