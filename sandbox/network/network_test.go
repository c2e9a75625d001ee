package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// place is a network namespace, kept by a process that does nothing else.
type place struct {
	t   *testing.T
	pid int
}

func newPlace(t *testing.T) place {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p := place{t, cmd.Process.Pid}
	p.do(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
	return p
}

// do works on the interfaces of a place.
func (p place) do(f func(h *netlink.Handle) error) {
	p.t.Helper()
	ns, err := netns.GetFromPid(p.pid)
	if err != nil {
		p.t.Fatal(err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		p.t.Fatal(err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		p.t.Fatal(err)
	}
}

// there runs f on a thread in the place.
func there[T any](p place, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		var r result
		fd, err := unix.PidfdOpen(p.pid, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if r.err = err; err == nil {
			r.value, r.err = f()
		}
		done <- r
	}()
	r := <-done
	return r.value, r.err
}

// greet has a server in the place that says who came.
func (p place) greet(addr string) {
	p.t.Helper()
	l, err := there(p, func() (net.Listener, error) { return new(net.ListenConfig).Listen(p.t.Context(), "tcp", addr) })
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, host)
			_ = c.Close()
		}
	}()
}

// ask connects from the place and returns what the server says.
func (p place) ask(addr string, patience time.Duration) (string, error) {
	c, err := there(p, func() (net.Conn, error) {
		ctx, cancel := context.WithTimeout(p.t.Context(), patience)
		defer cancel()
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	said, err := io.ReadAll(c)
	return string(said), err
}

const (
	long  = 10 * time.Second
	short = 300 * time.Millisecond // for what must not come
)

// enterOwn takes this test's thread to a host of its own: nothing of the real one is touched.
func enterOwn(t *testing.T) place {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NETWORK TESTS DO NOT RUN: they need root for namespaces, interfaces and rules")
	}
	host := newPlace(t)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	fd, err := unix.PidfdOpen(host.pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if lacks := Missing(); len(lacks) > 0 {
		t.Skip("NETWORK TESTS DO NOT RUN: " + strings.Join(lacks, "; "))
	}
	return host
}

func TestMembersAreRoutedMaskedPublishedAndApart(t *testing.T) { //nolint:paralleltest // it owns a thread
	host := enterOwn(t)
	world := newPlace(t)
	host.do(func(h *netlink.Handle) error {
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "world", PeerNamespace: netlink.NsPid(world.pid)}); err != nil {
			return err
		}
		up, err := h.LinkByName("up0")
		if err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr("198.51.100.1/24")
		return errors.Join(h.AddrAdd(up, addr), h.LinkSetUp(up))
	})
	world.do(func(h *netlink.Handle) error {
		l, err := h.LinkByName("world")
		if err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr("198.51.100.2/24")
		_, modules, _ := net.ParseCIDR("172.29.77.0/24")
		err = errors.Join(h.AddrAdd(l, addr), h.LinkSetUp(l))
		return errors.Join(err, h.RouteAdd(&netlink.Route{Dst: modules, Gw: net.ParseIP("198.51.100.1")})) // it would like to come in
	})
	world.greet("198.51.100.2:7")
	host.greet("127.0.0.1:23")

	dir := t.TempDir()
	n, err := New(Config{RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	a, b := newPlace(t), newPlace(t)
	first, _ := n.Addr(0)
	second, _ := n.Addr(1)
	if err := n.Join("a", Member{Addr: first, Ports: []Port{{Host: 8080, Inside: 80}}, Reach: []string{"b"}}, a.pid); err != nil {
		t.Fatal(err)
	}
	host.greet("172.29.77.1:24") // the address is there now
	if err := n.Join("b", Member{Addr: second}, b.pid); err != nil {
		t.Fatal(err)
	}
	a.greet("0.0.0.0:80")
	b.greet("0.0.0.0:90")

	for claim, c := range map[string]struct {
		from place
		addr string
		want string // "" = nothing comes
	}{
		"a member reaches the world behind the host's address": {a, "198.51.100.2:7", "198.51.100.1"},
		"a member reaches whom it may":                         {a, second.String() + ":90", first.String()},
		"and nobody else":                                      {b, first.String() + ":80", ""},
		"not the host at the gateway's address":                {a, "172.29.77.1:24", ""},
		"nor at another address of it":                         {a, "198.51.100.1:23", ""},
		"the world comes in by a published port":               {world, "198.51.100.1:8080", "198.51.100.2"},
		"and by no other way":                                  {world, first.String() + ":80", ""},
		"the host reaches a published port at its own address": {host, "198.51.100.1:8080", "198.51.100.1"},
		"and at its loopback":                                  {host, "127.0.0.1:8080", "172.29.77.1"},
	} {
		patience := long
		if c.want == "" {
			patience = short
		}
		if got, err := c.from.ask(c.addr, patience); got != c.want {
			t.Errorf("%s: got %q, %v, want %q", claim, got, err, c.want)
		}
	}

	again, err := New(Config{RunDir: dir}) // the next agent
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Join("a", Member{Addr: first, Ports: []Port{{Host: 8081, Inside: 80}}}, a.pid); err != nil {
		t.Fatal(err)
	}
	if got, err := world.ask("198.51.100.1:8081", long); got != "198.51.100.2" {
		t.Errorf("a port that was published anew: got %q, %v", got, err)
	}
	if got, err := world.ask("198.51.100.1:8080", short); got != "" {
		t.Errorf("a port that is no longer published: got %q, %v", got, err)
	}
	if got, err := b.ask("198.51.100.2:7", long); got != "198.51.100.1" {
		t.Errorf("a member that the next agent did not join again: got %q, %v", got, err)
	}
	if err := again.Leave("a"); err != nil {
		t.Fatal(err)
	}
	if got := interfaces(t); len(got) != 1 || got[0] != n.iface("b") {
		t.Errorf("interfaces: got %q, want only that of b", got)
	}
	if err := again.Sweep(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	n.expectNothing(t)
}

// expectNothing checks that nothing is left of a network.
func (n *Network) expectNothing(t *testing.T) {
	t.Helper()
	if got := interfaces(t); len(got) != 0 {
		t.Errorf("interfaces: got %q, want none", got)
	}
	for _, family := range []byte{familyIPv4, familyIPv6} {
		b := newBatch()
		b.family = family
		b.nft(unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, n.table))
		if err := b.commit(); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("rules of family %d: got %v, want none", family, err)
		}
	}
	if raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || string(raw) != "0\n" {
		t.Errorf("the host forwards: got %q, %v, want what was before", raw, err)
	}
	if _, err := os.Stat(n.file()); !os.IsNotExist(err) {
		t.Errorf("what is written down: got %v, want nothing", err)
	}
}

func interfaces(t *testing.T) (names []string) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "sp") {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

func TestWhatADeadRunLeftIsCleared(t *testing.T) { //nolint:paralleltest // it owns a thread
	enterOwn(t)
	n, err := New(Config{RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	module := newPlace(t)
	addr, _ := n.Addr(0)
	if err := n.Join("a", Member{Addr: addr}, module.pid); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(n.file()); err != nil { // it died before it wrote that down
		t.Fatal(err)
	}
	next, err := New(Config{RunDir: n.cfg.RunDir})
	if err != nil {
		t.Fatal(err)
	}
	next.forward = true // which it cannot know
	if err := next.Sweep(func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	next.expectNothing(t)
}

func TestARangeInUseIsRefused(t *testing.T) { //nolint:paralleltest // it owns a thread
	host := enterOwn(t)
	host.do(func(h *netlink.Handle) error {
		if err := h.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}); err != nil {
			if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "lan2"}); err != nil {
				return err
			}
		}
		l, err := h.LinkByName("lan")
		if err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr("172.29.0.1/16")
		return errors.Join(h.AddrAdd(l, addr), h.LinkSetUp(l))
	})
	n, err := New(Config{RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := n.Addr(0)
	if err := n.Join("a", Member{Addr: addr}, newPlace(t).pid); err == nil || !strings.Contains(err.Error(), "set another network.range") {
		t.Errorf("got %v, want a refusal that says what to do", err)
	}
}

func TestAddressesComeFromTheRange(t *testing.T) {
	t.Parallel()
	n, err := New(Config{RunDir: t.TempDir(), Range: netip.MustParsePrefix("10.1.2.0/29")})
	if err != nil {
		t.Fatal(err)
	}
	for number, want := range []string{"10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"} {
		if got, err := n.Addr(uint32(number)); err != nil || got.String() != want {
			t.Errorf("address %d: got %s, %v, want %s", number, got, err, want)
		}
	}
	if got, err := n.Addr(5); err == nil {
		t.Errorf("one more than there are: got %s", got)
	}
	if _, err := New(Config{Range: netip.MustParsePrefix("fd00::/64")}); err == nil {
		t.Error("a range of IPv6 is taken")
	}
}

func FuzzVerdict(f *testing.F) {
	f.Add([]byte{36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255})
	f.Add(make([]byte, 20))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = verdict(raw, 1) })
}

func FuzzRoutes(f *testing.F) {
	f.Add("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\nlan\t00001DAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n")
	f.Fuzz(func(t *testing.T, table string) {
		for _, r := range parseRoutes(table) {
			if !r.to.IsValid() || r.iface == "" {
				t.Errorf("got %v", r)
			}
		}
	})
}

func FuzzServers(f *testing.F) {
	f.Add("nameserver 127.0.0.53\noptions edns0\nnameserver fe80::1%eth0\n")
	f.Fuzz(func(t *testing.T, conf string) {
		list := parseServers(conf)
		var again string
		for _, s := range list {
			again += fmt.Sprintf("nameserver %s\n", s.Addr())
		}
		if got := parseServers(again); len(list) > maxServers || fmt.Sprint(got) != fmt.Sprint(list) {
			t.Errorf("got %v, then %v", list, got)
		}
	})
}
