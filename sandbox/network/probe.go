package network

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Missing tells what this kernel lacks for such a network, a line for each: what, and what to build it with. It tries everything in a network
// namespace that is thrown away, so the host is not touched.
func Missing() []string {
	found := make(chan []string, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		found <- missing()
	}()
	return <-found
}

func missing() []string {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return []string{fmt.Sprintf("network namespaces cannot be made: %v; build the kernel with CONFIG_NET_NS", err)}
	}
	var lacks []string
	l, err := here()
	if err == nil {
		err = l.pair("probe", "probe2", 0)
		l.close()
	}
	if err != nil {
		lacks = append(lacks, "no pairs of interfaces: "+because(err, "CONFIG_VETH"))
	}
	n := &Network{prefix: "probe", table: "probe"}
	m := Member{Addr: netip.MustParseAddr("192.0.2.1"), Reach: []string{"a"}}
	if err := n.rules(map[string]Member{"a": m}, true); err != nil {
		lacks = append(lacks, "no rules: "+because(err, "CONFIG_NF_TABLES_IPV4, CONFIG_NFT_CT, CONFIG_NFT_NAT and CONFIG_NFT_MASQ"))
		return lacks
	}
	m.Ports = []Port{{Host: 80, Inside: 80}}
	if err := n.rules(map[string]Member{"a": m}, true); err != nil {
		lacks = append(lacks, "no published ports: "+because(err, "CONFIG_NFT_FIB_IPV4"))
	}
	return lacks
}

// because words an error of the kernel with the options that would make it go away.
func because(err error, options string) string {
	if errors.Is(err, syscall.EPERM) {
		return err.Error() + "; run the agent as root"
	}
	return fmt.Sprintf("%v; build the kernel with %s", err, options)
}
