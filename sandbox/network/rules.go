package network

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// rules writes the rules for the members in one transaction.
func (n *Network) rules(members map[string]Member, alone bool) error {
	b := newBatch()
	t := n.table
	b.table(familyIPv4, t)
	b.chain(t, "prerouting", "nat", unix.NF_INET_PRE_ROUTING, -100)
	b.chain(t, "output", "nat", unix.NF_INET_LOCAL_OUT, -100)
	b.chain(t, "postrouting", "nat", unix.NF_INET_POST_ROUTING, 100)
	b.chain(t, "forward", "filter", unix.NF_INET_FORWARD, 0)
	b.chain(t, "input", "filter", unix.NF_INET_LOCAL_IN, 0)

	known := connection(unix.NFT_CT_STATE, stateKnown)
	b.rule(t, "forward", inPrefix(n.prefix), known, accept())
	b.rule(t, "forward", outPrefix(n.prefix), known, accept())
	b.rule(t, "input", inPrefix(n.prefix), known, accept())
	for _, id := range sorted(members) {
		m := members[id]
		iface, addr := n.iface(id), m.Addr.AsSlice()
		// Nobody speaks in another's name.
		b.rule(t, "forward", in(iface), header(1, ipSource, 4), differs(addr), refuse())
		for _, other := range m.Reach {
			if to, ok := members[other]; ok {
				b.rule(t, "forward", in(iface), out(n.iface(other)), header(1, ipDest, 4), equal(to.Addr.AsSlice()), accept())
			}
		}
		for _, p := range m.Ports {
			to := redirect(addr, p.Inside)
			port := [][]byte{toThisHost(), protocol(p.UDP), header(2, portDest, 2), equal(binary.BigEndian.AppendUint16(nil, p.Host))}
			if p.Addr.IsValid() && !p.Addr.IsUnspecified() {
				port = append(port, header(1, ipDest, 4), equal(p.Addr.AsSlice()))
			}
			b.rule(t, "prerouting", join(port), to)
			b.rule(t, "output", join(port), to)
		}
		b.rule(t, "postrouting", header(1, ipSource, 4), equal(addr), notOutPrefix(n.prefix), masquerade())
		// The host reached a published port at an address that the module has no way back to.
		b.rule(t, "postrouting", header(1, ipSource, 1), equal([]byte{127}), out(iface), masquerade())
	}
	b.rule(t, "forward", inPrefix(n.prefix), outPrefix(n.prefix), refuse())
	b.rule(t, "forward", inPrefix(n.prefix), accept())
	b.rule(t, "forward", outPrefix(n.prefix), connection(unix.NFT_CT_STATUS, statusDNAT), accept())
	b.rule(t, "forward", outPrefix(n.prefix), refuse())
	if alone { // the host forwarded nothing before it did so for us
		b.rule(t, "forward", refuse())
	}
	b.rule(t, "input", inPrefix(n.prefix), refuse())
	return b.commit()
}

// rules6 keeps the members out of IPv6, in which they have no address. A kernel without it needs no rule.
func (n *Network) rules6() error {
	b := newBatch()
	b.table(familyIPv6, n.table)
	for chain, hook := range map[string]int32{"forward": unix.NF_INET_FORWARD, "input": unix.NF_INET_LOCAL_IN} {
		b.chain(n.table, chain, "filter", hook, 0)
		b.rule(n.table, chain, inPrefix(n.prefix), refuse())
	}
	return b.commit()
}

// clear removes every rule.
func (n *Network) clear(family byte) error {
	b := newBatch()
	b.drop(family, n.table)
	return b.commit()
}

func protocol(udp bool) []byte {
	kind := byte(unix.IPPROTO_TCP)
	if udp {
		kind = unix.IPPROTO_UDP
	}
	return join([][]byte{meta(unix.NFT_META_L4PROTO), equal([]byte{kind})})
}

// Port is one of the host that leads to a member.
type Port struct {
	Addr   netip.Addr `json:"addr,omitzero"` // of the host; invalid or unspecified = all of its addresses
	Host   uint16     `json:"host"`
	Inside uint16     `json:"inside"`
	UDP    bool       `json:"udp,omitempty"`
}
