package deployment

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of settings. Those of a sandbox itself are repeated here because a deployment is refused before anything is stopped.
const (
	maxImage     = 2048            // bytes of an image reference
	minMemory    = 1 << 20         // bytes: below it a sandbox cannot start
	maxMemory    = 1 << 50         // bytes
	minCPU       = 10              // thousandths of a core: the kernel's least share
	maxCPU       = 1024 * 1000     // thousandths of a core
	maxPids      = 1 << 22         // the kernel's most
	maxFiles     = 1 << 20         // open files
	minIO        = 64 << 10        // bytes a second: with less a program takes minutes to start
	maxStop      = 5 * time.Minute // a technician waits for it
	maxProbation = time.Hour
)

// ownSettings reads the settings of the types sandbox and native. They are ours, so an unknown member is refused.
func (p *parser) ownSettings(o object, t Type) Settings {
	s := Settings{Image: p.image(o), Digest: p.digest(o)}
	if t == Native && !isBundle(s.Image) {
		p.fail(o.at("image"), quote(s.Image), "a bundle (https://…, file://… or bundle:sha256:…) for a native module")
	}
	s.Args = p.texts(o.at("args"), o.get("args"))
	if len(s.Args) > 0 && s.Args[0] == "" {
		p.fail(o.at("args[0]"), "empty", "the program to run")
	}
	s.Env = p.plainEnv(o.object("env"))
	s.User = p.user(o.at("user"), o.text("user"))
	s.Network = p.network(o)
	p.bridged(o, &s)
	s.Limits = p.limits(o.object("limits"))
	s.Permissions = p.permissions(o)
	if hal := p.list(o.at("hal"), o.get("hal")); len(hal) > 0 {
		s.Hal = p.grants(o.at("hal"), hal)
	}
	if data := o.get("data"); data != nil {
		if s.Data = p.size(o.at("data"), data, 0); s.Data > 0 {
			p.note(o.at("data"), "bounded by a project quota or a loop file, where the device has one of them: its log says which")
		}
	}
	if v := o.get("writable"); v != nil {
		if s.Writable = p.size(o.at("writable"), v, 0); s.Writable > 0 && t == Native {
			p.fail(o.at("writable"), "not for a native module: its root is a view of the host", "data, or type sandbox")
		}
	}
	s.Health = p.health(o.object("health"))
	if v := o.get("stopTimeout"); v != nil {
		s.StopTimeout = p.duration(o.at("stopTimeout"), v, maxStop)
	}
	o.onlyThese()
	return s
}

// dockerSettings reads the settings of a docker module: image, digest and createOptions.
func (p *parser) dockerSettings(o object) Settings {
	s := Settings{Image: p.image(o), Digest: p.digest(o)}
	for _, key := range []string{"args", "env", "user", "network", "ports", "reach", "limits", "hal", "data", "writable", "health", "permissions", "stopTimeout"} {
		if o.get(key) != nil {
			p.fail(o.at(key), "not for a docker module", "type sandbox or native, or createOptions")
		}
	}
	p.create(o.at("createOptions"), p.createText(o), &s)
	if o.get("integrity") != nil {
		p.note(o.at("integrity"), "signatures of manifests are not checked")
	}
	o.noteRest()
	return s
}

func (p *parser) image(o object) string {
	const want = "an OCI reference, https://… or file://… of a bundle, or bundle:sha256:…"
	path := o.at("image")
	image := p.text(path, o.need("image", want))
	switch {
	case image == "" || len(image) > maxImage:
		p.fail(path, strconv.Itoa(len(image))+" characters", want)
	case strings.ContainsFunc(image, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		p.fail(path, quote(image)+" holds a space or control character", want)
	case strings.HasPrefix(image, "http://"):
		p.fail(path, quote(image), "https://: images do not come over an open line")
	}
	return image
}

// isBundle tells a bundle from an OCI reference.
func isBundle(image string) bool {
	for _, prefix := range []string{"https://", "file://", "bundle:sha256:"} {
		if strings.HasPrefix(image, prefix) {
			return true
		}
	}
	return false
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func (p *parser) digest(o object) string {
	digest := o.text("digest")
	if digest != "" && !digestForm.MatchString(digest) {
		p.fail(o.at("digest"), quote(digest), `"sha256:" and 64 hex digits`)
	}
	return digest
}

// plainEnv reads {"NAME": scalar}.
func (p *parser) plainEnv(o object) map[string]string {
	var env map[string]string
	for _, name := range o.keys() {
		if o.members[name] == nil {
			continue
		}
		if env == nil {
			env = map[string]string{}
		}
		p.envName(o.path, name)
		env[name] = p.scalar(o.at(name), o.members[name])
	}
	return env
}

// user checks "user" or "user:group", names or numbers.
func (p *parser) user(path, user string) string {
	const want = `"user" or "user:group", names or numbers below 65536`
	if strings.Count(user, ":") > 1 || strings.ContainsAny(user, " \t\r\n") {
		p.fail(path, quote(user), want)
	}
	for part := range strings.SplitSeq(user, ":") {
		if n, err := strconv.ParseInt(part, 10, 64); err == nil && (n < 0 || n > math.MaxUint16) {
			p.fail(path, quote(user), want)
		}
	}
	return user
}

// permissions are names of walls; whether they are opened is for the device's configuration to say.
func (p *parser) permissions(o object) []string {
	names := p.texts(o.at("permissions"), o.get("permissions"))
	for i, name := range names {
		at := o.at("permissions") + "[" + strconv.Itoa(i) + "]"
		if name != "trace" && name != "io_uring" {
			p.fail(at, quote(name), "trace or io_uring; the host's network is asked for by network: host")
		} else if slices.Contains(names[:i], name) {
			p.fail(at, quote(name), "each name once")
		}
	}
	return names
}

func (p *parser) network(o object) Network {
	return choice(o, "network", networks, NoNetwork)
}

func (p *parser) limits(o object) Limits {
	var l Limits
	if v := o.get("memory"); v != nil {
		l.Memory = p.size(o.at("memory"), v, minMemory)
	}
	if v := o.get("cpu"); v != nil {
		l.CPU = p.cores(o.at("cpu"), v)
	}
	if v := o.get("pids"); v != nil {
		l.Pids = p.whole(o.at("pids"), v, 1, maxPids)
	}
	if v := o.get("io"); v != nil {
		l.IO = p.size(o.at("io"), v, minIO)
	}
	o.onlyThese()
	return l
}

// cores reads a number of cores as thousandths.
func (p *parser) cores(path string, value any) int64 {
	number, ok := value.(json.Number)
	cores, err := strconv.ParseFloat(number.String(), 64)
	if !ok || err != nil || cores < minCPU/1000.0 || cores > maxCPU/1000 {
		p.fail(path, kindOf(value), "a number of cores from 0.01 to 1024")
		return 0
	}
	return int64(math.Round(cores * 1000))
}

// grants checks that hal is a list of names and objects; what they mean is known to the hardware room.
func (p *parser) grants(path string, list []any) json.RawMessage {
	for i, grant := range list {
		at := path + "[" + strconv.Itoa(i) + "]"
		switch g := grant.(type) {
		case string:
			if g == "" {
				p.fail(at, "empty", "the name of a line, bus or sensor")
			}
		case map[string]any:
		default:
			p.fail(at, kindOf(grant), "a name, or an object that grants one")
		}
	}
	return json.RawMessage(printed(list))
}

// printed is a JSON value as text, keys sorted.
func printed(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		// Only values from a JSON decoder get here and those always print.
		panic("deployment: " + err.Error())
	}
	return string(text)
}
