package upstream

import (
	"context"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestOnlyNewsOfTheNetworkAreEvents(t *testing.T) {
	t.Parallel()
	const up = unix.IFF_UP | unix.IFF_RUNNING
	link := func(kind uint16, index int32, flags uint32) netlink.LinkUpdate {
		return netlink.LinkUpdate{
			IfInfomsg: nl.IfInfomsg{IfInfomsg: unix.IfInfomsg{Index: index, Flags: flags}},
			Header:    unix.NlMsghdr{Type: kind},
		}
	}
	address := func(index int, ip string, added bool) netlink.AddrUpdate {
		return netlink.AddrUpdate{LinkIndex: index, LinkAddress: net.IPNet{IP: net.ParseIP(ip)}, NewAddr: added}
	}
	w := &watch{running: map[int]bool{}, addresses: map[string]bool{}}
	steps := []struct {
		name string
		news bool
		want bool
	}{
		{"an interface that is up without carrier", w.link(link(unix.RTM_NEWLINK, 2, unix.IFF_UP)), false},
		{"its carrier", w.link(link(unix.RTM_NEWLINK, 2, up)), true},
		{"its carrier again", w.link(link(unix.RTM_NEWLINK, 2, up)), false},
		{"loss of its carrier", w.link(link(unix.RTM_NEWLINK, 2, unix.IFF_UP)), false},
		{"its carrier after that", w.link(link(unix.RTM_NEWLINK, 2, up)), true},
		{"its end", w.link(link(unix.RTM_DELLINK, 2, up)), false},
		{"another one in its place", w.link(link(unix.RTM_NEWLINK, 2, up)), true},
		{"loopback", w.link(link(unix.RTM_NEWLINK, 1, up|unix.IFF_LOOPBACK)), false},
		{"an address", w.address(address(2, "192.0.2.1", true)), true},
		{"the same, renewed", w.address(address(2, "192.0.2.1", true)), false},
		{"the same on another interface", w.address(address(3, "192.0.2.1", true)), true},
		{"its removal", w.address(address(2, "192.0.2.1", false)), false},
		{"the address after that", w.address(address(2, "192.0.2.1", true)), true},
		{"a loopback address", w.address(address(1, "127.0.0.5", true)), false},
		{"a default route without destination", isDefault(nil), true},
		{"a default route", isDefault(&net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}), true},
		{"a route to a network", isDefault(&net.IPNet{IP: net.IPv4(10, 0, 0, 0), Mask: net.CIDRMask(8, 32)}), false},
	}
	for _, s := range steps {
		if s.news != s.want {
			t.Errorf("%s: got %v, want %v", s.name, s.news, s.want)
		}
	}
}

func TestWatchLinksSeesACableBeingPlugged(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: making a network interface needs root")
	}
	runtime.LockOSThread() // for good: the thread ends with this test, and its network with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("SKIPPED: no network namespace to be had: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	up, err := WatchLinks(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wait := func(what string) {
		t.Helper()
		select {
		case <-up:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: no event", what)
		}
	}
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cable0"}, PeerName: "socket0"}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Skipf("SKIPPED: this kernel makes no pair of interfaces: %v", err)
	}
	socket, err := netlink.LinkByName("socket0")
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []netlink.Link{cable, socket} {
		if err := netlink.LinkSetUp(end); err != nil {
			t.Fatal(err)
		}
	}
	wait("carrier")
	ip := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(cable, ip); err != nil {
		t.Fatal(err)
	}
	wait("address")
	cancel()
	for range up { // closed when the goroutine is over
	}
}
