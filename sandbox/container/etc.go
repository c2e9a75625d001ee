package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// writeEtc makes the files of /etc that belong to the sandbox and not to its
// image: hosts, hostname, resolv.conf.
func writeEtc(t *tree, s sandbox.Spec, root *rootfs) {
	t.write("/etc/hostname", hostname(s)+"\n")
	t.write("/etc/hosts", hosts(s))
	if s.Network == sandbox.Bridge {
		t.write("/etc/resolv.conf", "nameserver 127.0.0.1\n") // the agent answers there
		return
	}
	resolv, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if s.Network == sandbox.None || err != nil {
		t.write("/etc/resolv.conf", "# this sandbox has no network beyond itself\n")
		return
	}
	// The file as it is now; a host that replaces it is seen at the next start.
	t.write("/etc/resolv.conf", "")
	root.mounts = append(root.mounts, bind(resolv, "/etc/resolv.conf", readOnly))
}

func hostname(s sandbox.Spec) string {
	if s.Hostname != "" {
		return s.Hostname
	}
	name := s.ID
	if len(name) > maxHostname {
		name = name[:maxHostname]
	}
	return strings.NewReplacer("_", "-", "+", "-").Replace(name)
}

// maxHostname is the longest label of a host name.
const maxHostname = 63

func hosts(s sandbox.Spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t%s\n", hostname(s))
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.Addr, strings.Join(h.Names, " "))
	}
	if s.Network == sandbox.Host {
		// Names the host knows stay known; ours are found first.
		if own, err := os.ReadFile("/etc/hosts"); err == nil {
			b.Write(own)
		}
	}
	return b.String()
}
