package deployment

import (
	"path"
	"strconv"
	"strings"
)

// What is mounted: the members of createOptions on volumes, binds, devices and /tmp. See createapply.go.

// applyTmpfs accepts /tmp, which every sandbox has, and its size.
func applyTmpfs(p *parser, at string, value any, s *Settings) {
	o := p.object(at, value)
	for _, target := range o.keys() {
		if path.Clean(target) != "/tmp" {
			p.fail(o.at(target), "not available: a sandbox has one tmpfs, /tmp", "/tmp, or a volume")
			return
		}
		for word := range strings.SplitSeq(p.text(o.at(target), o.members[target]), ",") {
			text, sized := strings.CutPrefix(word, "size=")
			if !sized {
				continue // mode and ownership of /tmp are those of every /tmp
			}
			if n, ok := tmpfsSize(text); ok {
				s.Limits.Tmp = max(s.Limits.Tmp, n)
			} else {
				p.fail(o.at(target), quote(word), "size= with bytes, or with k, m or g")
			}
		}
	}
}

// tmpfsSize reads a size as mount(8) takes it.
func tmpfsSize(text string) (int64, bool) {
	unit := int64(1)
	for i, suffix := range []string{"k", "m", "g"} {
		if digits, ok := strings.CutSuffix(strings.ToLower(text), suffix); ok {
			text, unit = digits, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n * unit, err == nil && n > 0 && n <= maxMemory/unit
}

func applyBinds(p *parser, at string, value any, s *Settings) {
	for i, entry := range p.texts(at, value) {
		where := at + "[" + strconv.Itoa(i) + "]"
		parts := strings.Split(entry, ":")
		if len(parts) < 2 || len(parts) > 3 {
			p.fail(where, quote(entry), `"name:/target" or "name:/target:ro"`)
			return
		}
		readOnly := false
		if len(parts) == 3 {
			for word := range strings.SplitSeq(parts[2], ",") {
				readOnly = readOnly || word == "ro"
			}
		}
		p.volume(where, parts[0], parts[1], readOnly, s)
	}
}

func applyMounts(p *parser, at string, value any, s *Settings) {
	for i, entry := range p.list(at, value) {
		o := p.object(at+"["+strconv.Itoa(i)+"]", entry)
		kind, _ := fold(o.members, "Type").(string)
		source, _ := fold(o.members, "Source").(string)
		target, _ := fold(o.members, "Target").(string)
		readOnly, _ := fold(o.members, "ReadOnly").(bool)
		switch {
		case kind == "volume" && source != "":
			p.volume(o.path, source, target, readOnly, s)
		case kind == "volume":
			p.volume(o.path, volumeName(target), target, readOnly, s)
		case kind == "tmpfs" && path.Clean(target) == "/tmp":
		default:
			p.fail(o.path, "a mount of type "+quote(kind)+" on "+quote(target)+" is not available", `type "volume", or "tmpfs" on /tmp`)
		}
	}
}

// applyDevices reads what --device writes. Making nodes (m) is no part of it: the node is there.
func applyDevices(p *parser, at string, value any, s *Settings) {
	list := p.list(at, value)
	if len(list) > maxDevices {
		p.fail(at, strconv.Itoa(len(list))+" devices", "at most "+strconv.Itoa(maxDevices))
		return
	}
	for i, entry := range list {
		o := p.object(at+"["+strconv.Itoa(i)+"]", entry)
		host, _ := fold(o.members, "PathOnHost").(string)
		target, _ := fold(o.members, "PathInContainer").(string)
		access, _ := fold(o.members, "CgroupPermissions").(string)
		for _, one := range []string{host, target} {
			if one != "" && (path.Clean(one) != one || !strings.HasPrefix(one, "/dev/")) {
				p.fail(o.path, "path "+quote(one), "a path below /dev, as /dev/ttyUSB0")
			}
		}
		switch {
		case host == "":
			p.fail(o.path, "no PathOnHost", "a path below /dev, as /dev/ttyUSB0")
		case strings.Trim(access, "rwm") != "":
			p.fail(o.path, "CgroupPermissions "+quote(access), "r or rw, with or without m")
		}
		if target == host {
			target = ""
		}
		s.Create.Devices = append(s.Create.Devices, Device{Path: host, Target: target, Write: access == "" || strings.Contains(access, "w")})
	}
}

// maxDevices is how many device nodes one module asks for.
const maxDevices = 32

func applyVolumes(p *parser, at string, value any, s *Settings) {
	o := p.object(at, value)
	for _, target := range o.keys() {
		p.volume(o.at(target), volumeName(target), target, false, s)
	}
}

// volumeName names a volume that has only a target.
func volumeName(target string) string {
	return "at" + strings.ReplaceAll(path.Clean(target), "/", "-")
}

// volume adds a durable directory of the module. A path of the host is no name.
func (p *parser) volume(at, name, target string, readOnly bool, s *Settings) {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "~") {
		p.fail(at, "path "+quote(name)+" of the host is not available", `a named volume, "name:/target"`)
		return
	}
	if name == "" || len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) {
		p.fail(at, "volume name "+quote(name), `letters, digits, "-", "_" and "."`)
		return
	}
	target = p.inside(at, target)
	if target == "/" || ours(target) {
		p.fail(at, "target "+quote(target)+" belongs to the sandbox itself", "another directory")
		return
	}
	for _, v := range s.Create.Volumes {
		if v.Target == target {
			p.fail(at, "target "+quote(target)+" is used twice", "one volume per target")
			return
		}
	}
	s.Create.Volumes = append(s.Create.Volumes, Volume{name, target, readOnly})
}

// ours tells the directories a sandbox makes itself.
func ours(target string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run/sandpiper"} {
		if target == dir || strings.HasPrefix(target, dir+"/") {
			return true
		}
	}
	return false
}
