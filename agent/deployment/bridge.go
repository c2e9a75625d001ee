package deployment

import (
	"net/netip"
	"strconv"
	"strings"
)

// Port is one of the host that leads into a module.
type Port struct {
	Addr   netip.Addr `json:"addr,omitzero"` // of the host; invalid = all of its addresses
	Host   uint16     `json:"host"`
	Inside uint16     `json:"inside"`
	UDP    bool       `json:"udp,omitempty"`
}

// Bounds of what one module may ask of the network.
const (
	maxPorts = 64
	maxReach = 64
)

const wantPort = "[address:]host:inside[/udp], ports from 1 to 65535"

// bridged reads what only a module on the bridge network has.
func (p *parser) bridged(o object, s *Settings) {
	for _, key := range []string{"ports", "reach"} {
		if o.get(key) != nil && s.Network != BridgeNetwork {
			p.fail(o.at(key), "set without network bridge", `"network": "bridge"`)
			return
		}
	}
	ports := p.texts(o.at("ports"), o.get("ports"))
	if len(ports) > maxPorts {
		p.fail(o.at("ports"), strconv.Itoa(len(ports))+" ports", "at most "+strconv.Itoa(maxPorts))
		return
	}
	for i, text := range ports {
		port, ok := parsePort(text)
		if !ok {
			p.fail(o.at("ports["+strconv.Itoa(i)+"]"), quote(text), wantPort)
			return
		}
		s.Ports = append(s.Ports, port)
	}
	s.Reach = p.texts(o.at("reach"), o.get("reach"))
	if len(s.Reach) > maxReach {
		p.fail(o.at("reach"), strconv.Itoa(len(s.Reach))+" modules", "at most "+strconv.Itoa(maxReach))
	}
	for i, name := range s.Reach {
		if why := badName(name); why != "" {
			p.fail(o.at("reach["+strconv.Itoa(i)+"]"), why, wantName)
		}
	}
}

// parsePort reads "8080:80", "127.0.0.1:8080:80" or "53:53/udp".
func parsePort(text string) (Port, bool) {
	var port Port
	rest, protocol, _ := strings.Cut(text, "/")
	switch protocol {
	case "", "tcp":
	case "udp":
		port.UDP = true
	default:
		return port, false
	}
	parts := strings.Split(rest, ":")
	if len(parts) == 3 {
		addr, err := netip.ParseAddr(parts[0])
		if err != nil || !addr.Is4() {
			return port, false
		}
		if !addr.IsUnspecified() {
			port.Addr = addr
		}
		parts = parts[1:]
	}
	if len(parts) != 2 {
		return port, false
	}
	for i, to := range []*uint16{&port.Host, &port.Inside} {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil || n == 0 {
			return port, false
		}
		*to = uint16(n)
	}
	return port, true
}

// applyPortBindings reads {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}. It comes after applyNetworkMode, as members are read in order of
// their names.
func applyPortBindings(p *parser, at string, value any, s *Settings) {
	o := p.object(at, value)
	for _, inside := range o.keys() {
		for i, entry := range p.list(o.at(inside), o.get(inside)) {
			b := p.object(o.at(inside)+"["+strconv.Itoa(i)+"]", entry)
			host, protocol, _ := strings.Cut(inside, "/")
			text := p.text(b.at("HostPort"), fold(b.members, "HostPort")) + ":" + host + "/" + protocol
			if ip, ok := fold(b.members, "HostIp").(string); ok && ip != "" {
				text = ip + ":" + text
			}
			port, ok := parsePort(strings.TrimSuffix(text, "/"))
			if !ok || len(s.Ports) >= maxPorts {
				p.fail(b.path, quote(text), wantPort+"; at most "+strconv.Itoa(maxPorts))
				return
			}
			s.Ports = append(s.Ports, port)
		}
	}
	switch {
	case len(s.Ports) == 0:
	case s.Network == HostNetwork:
		p.fail(at, "set beside NetworkMode host", "one of them")
	default:
		s.Network = BridgeNetwork
	}
}
