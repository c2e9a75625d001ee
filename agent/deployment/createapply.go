package deployment

import (
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The functions here give members of createOptions their meaning. path is where the member stands.

func applyCmd(p *parser, at string, value any, s *Settings) { s.Create.Cmd = p.command(at, value) }

func applyEntrypoint(p *parser, at string, value any, s *Settings) {
	s.Create.Entrypoint = p.command(at, value)
}

// command is a list of words; Docker takes one word as plain text.
func (p *parser) command(at string, value any) []string {
	if text, ok := value.(string); ok {
		return []string{p.text(at, text)}
	}
	return p.texts(at, value)
}

func applyEnv(p *parser, at string, value any, s *Settings) {
	for i, entry := range p.texts(at, value) {
		name, text, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			p.fail(at+"["+strconv.Itoa(i)+"]", quote(name), "NAME=value; nothing is taken from the agent's own environment")
			return
		}
		if s.Env == nil {
			s.Env = map[string]string{}
		}
		s.Env[name] = text
	}
}

func applyLabels(p *parser, at string, value any, s *Settings) {
	s.Create.Labels = p.plainEnv(p.object(at, value))
}

func applyHostname(p *parser, at string, value any, s *Settings) {
	s.Create.Hostname = p.text(at, value)
	if len(s.Create.Hostname) > 63 || strings.ContainsAny(s.Create.Hostname, " \t\r\n/") {
		p.fail(at, quote(s.Create.Hostname), "a host name of at most 63 characters")
	}
}

func applyUser(p *parser, at string, value any, s *Settings) { s.User = p.user(at, p.text(at, value)) }

func applyWorkingDir(p *parser, at string, value any, s *Settings) {
	s.Create.WorkingDir = p.inside(at, p.text(at, value))
}

// inside is a clean absolute path in the sandbox.
func (p *parser) inside(at, text string) string {
	if !path.IsAbs(text) {
		p.fail(at, quote(text), "an absolute path in the sandbox")
	}
	return path.Clean(text)
}

func applyStopSignal(p *parser, at string, value any, s *Settings) {
	signal := p.text(at, value)
	name := strings.TrimPrefix(strings.ToUpper(signal), "SIG")
	n, err := strconv.Atoi(signal)
	if err == nil && (n < 1 || n > 64) || err != nil && (name == "" || len(name) > 12 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '+' && r != '-'
	})) {
		p.fail(at, quote(signal), `a signal such as "SIGTERM", or its number`)
	}
	s.Create.StopSignal = signal
}

func applyStopTimeout(p *parser, at string, value any, s *Settings) {
	s.StopTimeout = time.Duration(p.whole(at, value, 0, int64(maxStop/time.Second))) * time.Second
}

func applyMemory(p *parser, at string, value any, s *Settings) {
	s.Limits.Memory = p.whole(at, value, minMemory, maxMemory)
}

// applyMemorySwap comes after applyMemory, as members are read in order of their names.
func applyMemorySwap(p *parser, at string, value any, s *Settings) {
	if s.Limits.Memory == 0 {
		p.fail(at, "set without Memory", "both")
		return
	}
	s.Limits.Swap = p.whole(at, value, s.Limits.Memory, maxMemory) - s.Limits.Memory
}

func applyNanoCpus(p *parser, at string, value any, s *Settings) {
	s.Limits.CPU = p.whole(at, value, minCPU*1e6, maxCPU*1e6) / 1e6
}

// applyNothing is for members that are read together with others, see createCPU.
func applyNothing(*parser, string, any, *Settings) {}

// createCPU turns CpuQuota per CpuPeriod into a limit. NanoCpus excludes them, as with Docker.
func (p *parser) createCPU(at string, members map[string]any, s *Settings) {
	host, _ := fold(members, "HostConfig").(map[string]any)
	quota, period := fold(host, "CpuQuota"), fold(host, "CpuPeriod")
	if isUnset(quota) {
		if !isUnset(period) {
			p.fail(at+".HostConfig.CpuPeriod", "set without CpuQuota", "both")
		}
		return
	}
	if s.Limits.CPU != 0 {
		p.fail(at+".HostConfig.CpuQuota", "set beside NanoCpus", "one of them")
		return
	}
	per := int64(100_000)
	if !isUnset(period) {
		per = p.whole(at+".HostConfig.CpuPeriod", period, 1000, 1_000_000)
	}
	amount := p.whole(at+".HostConfig.CpuQuota", quota, 1000, 1_000_000*1024)
	if p.err == nil {
		s.Limits.CPU = max(minCPU, amount*1000/per)
	}
}

// fold finds a member whatever the case of its name.
func fold(members map[string]any, name string) any {
	for _, key := range slices.Sorted(maps.Keys(members)) {
		if strings.EqualFold(key, name) {
			return members[key]
		}
	}
	return nil
}

func applyPidsLimit(p *parser, at string, value any, s *Settings) {
	if n := p.whole(at, value, -1, maxPids); n > 0 {
		s.Limits.Pids = n
	}
}

func applyShmSize(p *parser, at string, value any, s *Settings) {
	s.Limits.Tmp = max(s.Limits.Tmp, p.whole(at, value, 4096, maxMemory))
}

// applyStorageOpt reads the size of a container's writable layer, which here is in memory and goes with the sandbox.
func applyStorageOpt(p *parser, at string, value any, s *Settings) {
	o := p.object(at, value)
	for _, key := range o.keys() {
		if key != "size" {
			p.fail(o.at(key), "no option of the writable layer that is known here", "size")
			return
		}
	}
	text := p.text(o.at("size"), o.members["size"])
	n, ok := tmpfsSize(text)
	if !ok || n < 4096 {
		p.fail(o.at("size"), quote(text), "bytes, at least 4096, or a number with k, m or g")
	}
	s.Writable = n
}

func applyUlimits(p *parser, at string, value any, s *Settings) {
	for i, entry := range p.list(at, value) {
		o := p.object(at+"["+strconv.Itoa(i)+"]", entry)
		if name, _ := fold(o.members, "Name").(string); name != "nofile" {
			p.fail(o.path, "limit "+quote(name)+" cannot be set", "nofile")
			return
		}
		s.Limits.Files = p.whole(o.at("Hard"), fold(o.members, "Hard"), 16, maxFiles)
	}
}

func applyNetworkMode(p *parser, at string, value any, s *Settings) {
	s.Network = p.mode(at, p.text(at, value))
}

// mode reads the name of a Docker network. The one of IoT Edge exists to reach the agent, which every sandbox does.
func (p *parser) mode(at, name string) Network {
	switch name {
	case "host":
		return HostNetwork
	case "none", "default", "azure-iot-edge":
		return NoNetwork
	case "bridge":
		return BridgeNetwork
	default:
		p.fail(at, "network "+quote(name)+" is not available", "none, host or bridge")
	}
	return NoNetwork
}

func applyNetworkDisabled(p *parser, at string, value any, s *Settings) {
	if s.Network != NoNetwork {
		p.fail(at, "set beside NetworkMode host", "one of them")
	}
}

// applyEndpoints comes after applyNetworkMode, as members are read in order of their names.
func applyEndpoints(p *parser, at string, value any, s *Settings) {
	o := p.object(at, value)
	for _, name := range o.keys() {
		network := p.mode(o.at(name), name)
		if s.Network == HostNetwork && network != HostNetwork {
			p.fail(o.at(name), "set beside NetworkMode host", "one of them")
		}
		if network != NoNetwork || s.Network != BridgeNetwork { // the default one, and ports were published
			s.Network = network
		}
		options := o.object(name)
		for _, option := range options.keys() {
			if !isUnset(options.members[option]) {
				p.fail(options.at(option), "not available: endpoints have no options", "")
			}
		}
	}
}

func applyExtraHosts(p *parser, at string, value any, s *Settings) {
	for i, entry := range p.texts(at, value) {
		name, text, _ := strings.Cut(entry, ":")
		addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
		if err != nil || name == "" || strings.ContainsAny(name, " \t\r\n#") {
			p.fail(at+"["+strconv.Itoa(i)+"]", quote(entry), `"name:address"`)
			return
		}
		s.Create.Hosts = append(s.Create.Hosts, Host{name, addr})
	}
}

func applySecurityOpt(p *parser, at string, value any, _ *Settings) {
	for i, entry := range p.texts(at, value) {
		switch entry {
		case "no-new-privileges", "no-new-privileges=true", "no-new-privileges:true":
		default:
			p.fail(at+"["+strconv.Itoa(i)+"]", quote(entry)+" is not available", `"no-new-privileges"`)
		}
	}
}

// applyPrivate accepts the words that ask for what a sandbox is.
func applyPrivate(p *parser, at string, value any, _ *Settings) {
	switch text := p.text(at, value); text {
	case "private", "none", "default", "local":
	default:
		p.fail(at, quote(text)+" is not available", "it left out")
	}
}
