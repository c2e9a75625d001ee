package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Config of a Network.
type Config struct {
	RunDir string       // on a tmpfs: what is there is written down in it
	Range  netip.Prefix // addresses of the members; the first is the host's. Default 172.29.77.0/24
	Logger *slog.Logger // default: discard
}

// DefaultRange is where members get their addresses when nobody says otherwise.
var DefaultRange = netip.MustParsePrefix("172.29.77.0/24")

// Member is a sandbox on the network.
type Member struct {
	Addr  netip.Addr `json:"addr"`
	Ports []Port     `json:"ports,omitempty"`
	Reach []string   `json:"reach,omitempty"` // ids of members it may open connections to
}

// Network joins sandboxes to the host.
type Network struct {
	cfg    Config
	prefix string // of the host's interfaces
	table  string // of nftables

	mu      sync.Mutex // guards what follows and the kernel's state
	members map[string]Member
	forward bool // it was us who had the host forward
}

// state is what is written down.
type state struct {
	V       int               `json:"v"`
	Members map[string]Member `json:"members"`
	Forward bool              `json:"forward,omitempty"`
}

// New reads what an earlier agent left; nothing of the kernel is touched before the first Join.
func New(cfg Config) (*Network, error) {
	if !cfg.Range.IsValid() {
		cfg.Range = DefaultRange
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if !cfg.Range.Addr().Is4() || cfg.Range.Bits() > 30 {
		return nil, fmt.Errorf("network range %s: want IPv4 addresses, at least four of them", cfg.Range)
	}
	cfg.Range = cfg.Range.Masked()
	h := fnv.New32a()
	_, _ = h.Write([]byte(cfg.RunDir)) // a hash never fails
	tag := fmt.Sprintf("%04x", h.Sum32()&0xffff)
	n := &Network{cfg: cfg, prefix: "sp" + tag + "-", table: "sandpiper-" + tag, members: map[string]Member{}}
	raw, err := os.ReadFile(n.file())
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	var s state
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil || s.V != 1 {
		cfg.Logger.Warn("what was on the network is not known, modules join it anew when they start", "err", err)
		return n, nil
	}
	if s.Members != nil {
		n.members = s.Members
	}
	n.forward = s.Forward
	return n, nil
}

func (n *Network) file() string { return filepath.Join(n.cfg.RunDir, "network.json") }

// save writes down what is there, in one step; the file lies on a tmpfs.
func (n *Network) save() error {
	raw, err := json.Marshal(state{1, n.members, n.forward})
	if err != nil {
		return err
	}
	if err := os.WriteFile(n.file()+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(n.file()+".new", n.file())
}

// iface is the name of the host's end of a member's pair: at most 15 bytes.
func (n *Network) iface(id string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // a hash never fails
	return fmt.Sprintf("%s%08x", n.prefix, h.Sum32())
}

// Gateway is the host's address on the network.
func (n *Network) Gateway() netip.Addr { return n.cfg.Range.Addr().Next() }

// Addr is the n-th member's address, n from 0; an error when the range has no so many.
func (n *Network) Addr(number uint32) (netip.Addr, error) {
	room := uint64(1)<<(32-n.cfg.Range.Bits()) - 3 // network, gateway, broadcast
	if uint64(number) >= room {
		return netip.Addr{}, fmt.Errorf("the network range %s has addresses for %d modules only; set a larger network.range", n.cfg.Range, room)
	}
	a := n.Gateway().As4()
	sum := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	sum += number + 1
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), nil
}

func sorted(members map[string]Member) []string {
	ids := make([]string, 0, len(members))
	for id := range members {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Join gives a sandbox its interface, its address and its rules. One that an earlier agent joined keeps its interface.
func (n *Network) Join(id string, m Member, pid int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.taken(id, m); err != nil {
		return err
	}
	if err := n.free(); err != nil {
		return err
	}
	if err := n.enable(); err != nil {
		return err
	}
	host, err := here()
	if err != nil {
		return err
	}
	defer host.close()
	if _, err := host.index(n.iface(id)); err != nil {
		if err := n.pair(host, id, m, pid); err != nil {
			return fmt.Errorf("join network: %w", errors.Join(err, host.remove(n.iface(id))))
		}
	}
	n.members[id] = m
	return n.apply()
}

// apply makes the rules those of the members.
func (n *Network) apply() error {
	if err := n.rules(n.members, n.forward); err != nil {
		return fmt.Errorf("network rules: %w", err)
	}
	if _, err := os.Stat("/proc/thread-self/net/if_inet6"); err == nil {
		if err := n.rules6(); err != nil {
			return fmt.Errorf("network rules of IPv6: %w", err)
		}
	}
	return n.save()
}

// free tells whether the range is nobody else's on this host.
func (n *Network) free() error {
	list, err := routes()
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.to.Overlaps(n.cfg.Range) && !strings.HasPrefix(r.iface, n.prefix) {
			return fmt.Errorf("the network range %s is in use on this host (route to %s by %s); set another network.range", n.cfg.Range, r.to, r.iface)
		}
	}
	return nil
}

// taken tells whether a port of the member leads to another one.
func (n *Network) taken(id string, m Member) error {
	for other, has := range n.members {
		for _, p := range has.Ports {
			for _, want := range m.Ports {
				apart := p.Addr.IsValid() && want.Addr.IsValid() && p.Addr != want.Addr
				if other != id && p.Host == want.Host && p.UDP == want.UDP && !apart {
					return fmt.Errorf("port %d of the host leads to %s already; publish another one", p.Host, other)
				}
			}
		}
	}
	return nil
}

// enable has the host forward packets.
func (n *Network) enable() error {
	const path = "/proc/sys/net/ipv4/ip_forward"
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("forward packets: %w", err)
	}
	if strings.TrimSpace(string(raw)) == "1" {
		return nil
	}
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("forward packets: %w", err)
	}
	n.forward = true
	return n.save()
}

// pair makes a member's interfaces.
func (n *Network) pair(host *links, id string, m Member, pid int) error {
	outside := n.iface(id)
	if err := host.pair(outside, "eth0", pid); err != nil {
		return fmt.Errorf("make interface: %w", err)
	}
	if err := host.connect(outside, n.Gateway(), m.Addr); err != nil {
		return err
	}
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+outside+"/disable_ipv6", []byte("1"), 0o644)   // a kernel without IPv6 has none to turn off
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+outside+"/route_localnet", []byte("1"), 0o644) // a published port at 127.0.0.1
	inside, err := linksOf(pid)
	if err != nil {
		return fmt.Errorf("namespace: %w", err)
	}
	defer inside.close()
	if err := inside.connect("eth0", m.Addr, n.Gateway()); err != nil {
		return err
	}
	return inside.by(n.Gateway())
}

// Leave takes a sandbox off the network.
func (n *Network) Leave(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.members[id]; !ok {
		return nil
	}
	delete(n.members, id)
	host, err := here()
	if err != nil {
		return err
	}
	defer host.close()
	if err := host.remove(n.iface(id)); err != nil {
		return fmt.Errorf("remove interface: %w", err)
	}
	if len(n.members) == 0 {
		return n.close()
	}
	return n.apply()
}

// Sweep takes off the network whatever is not to be kept: members, interfaces and rules that a dead run left.
func (n *Network) Sweep(keep func(id string) bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.members)
	for id := range n.members {
		if !keep(id) {
			delete(n.members, id)
		}
	}
	wanted := map[string]bool{}
	for id := range n.members {
		wanted[n.iface(id)] = true
	}
	names, err := own(n.prefix)
	if err != nil {
		return err
	}
	host, err := here()
	if err != nil {
		return err
	}
	defer host.close()
	left := before != len(n.members)
	for _, name := range names {
		if wanted[name] {
			continue
		}
		n.cfg.Logger.Info("left-over interface is removed", "interface", name)
		left = true
		if err := host.remove(name); err != nil {
			return fmt.Errorf("remove interface %s: %w", name, err)
		}
	}
	switch {
	case len(n.members) > 0 && left:
		return n.apply()
	case len(n.members) == 0:
		if _, err := os.Stat(n.file()); left || err == nil {
			return n.close()
		}
	}
	return nil
}

// close removes the rules, and has the host forward no more if it did so for us.
func (n *Network) close() error {
	errs := []error{n.clear(familyIPv4)}
	if _, err := os.Stat("/proc/thread-self/net/if_inet6"); err == nil {
		errs = append(errs, n.clear(familyIPv6))
	}
	if n.forward {
		errs = append(errs, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0o644))
		n.forward = false
	}
	if err := os.Remove(n.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
