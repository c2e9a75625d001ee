package deployment

import (
	"strconv"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// Agent is the desired section of $edgeAgent.
type Agent struct {
	SchemaVersion string
	Runtime       Runtime
	System        map[string]System // edgeAgent and edgeHub, which are part of this agent: kept for the report
	Modules       []Module          // sorted by name
	Notes         []string          // members that are accepted and have no effect, one line each
}

// Runtime is what a manifest says about the container engine.
type Runtime struct {
	Type           string // "docker" in every manifest for Azure IoT Edge
	MinVersion     string // minDockerVersion, echoed
	LoggingOptions string // echoed
	Registries     map[string]Registry
}

// Registry is a login at an image registry.
type Registry struct {
	Address, Username string
	Password          iothub.Secret
}

// System is a system module as the manifest has it.
type System struct {
	Type    string
	Image   string
	Restart RestartPolicy
	Pull    PullPolicy
	Order   uint32
	Env     map[string]string

	createText string
}

// Find is the module of that name, nil when there is none.
func (a Agent) Find(name string) *Module {
	for i := range a.Modules {
		if a.Modules[i].Name == name {
			return &a.Modules[i]
		}
	}
	return nil
}

// ParseAgent reads the desired section of $edgeAgent. Its error is an [*Error].
func ParseAgent(desired []byte) (Agent, error) {
	doc, err := twin.ParsePatch(desired)
	if err != nil {
		return Agent{}, ofTwin(err)
	}
	p := &parser{}
	o := p.object("", doc)
	if len(doc) == 0 {
		p.failCode(CodeEmpty, "desired", "empty", "schemaVersion, runtime and modules")
		return Agent{}, p.done()
	}
	a := Agent{SchemaVersion: p.schema(o)}
	a.Runtime = p.runtime(o.object("runtime"))
	a.System = p.systems(o.object("systemModules"))
	modules := o.object("modules")
	for _, name := range modules.keys() {
		if modules.members[name] == nil {
			continue
		}
		a.Modules = append(a.Modules, p.module(name, p.object(modules.at(name), modules.members[name])))
	}
	if o.get("integrity") != nil {
		p.note("integrity", "signatures of manifests are not checked")
	}
	o.noteRest()
	if err := p.done(); err != nil {
		return Agent{}, err
	}
	a.Notes = p.notes
	return a, nil
}

// schema checks schemaVersion: major 1, at most 1.1.
func (p *parser) schema(o object) string {
	const want = `"1.0" or "1.1"`
	value := o.get("schemaVersion")
	if value == nil {
		p.failCode(CodeSchema, "schemaVersion", "missing", want)
		return ""
	}
	text, ok := value.(string)
	if !ok {
		p.failCode(CodeSchema, "schemaVersion", kindOf(value), want)
		return ""
	}
	major, rest, _ := strings.Cut(text, ".")
	minor, patch, _ := strings.Cut(rest, ".")
	if major != "1" || minor != "" && minor != "0" && minor != "1" || minor == "1" && patch != "" && patch != "0" {
		p.failCode(CodeSchema, "schemaVersion", quote(text), want)
	}
	return text
}

func (p *parser) runtime(o object) Runtime {
	if o.members == nil {
		return Runtime{Type: "docker"}
	}
	r := Runtime{Type: o.text("type")}
	if r.Type != "docker" && r.Type != "sandbox" {
		p.fail(o.at("type"), kindOf(o.get("type")), `"docker" or "sandbox"`)
	}
	settings := o.object("settings")
	r.MinVersion = settings.text("minDockerVersion")
	r.LoggingOptions = settings.text("loggingOptions")
	logins := settings.object("registryCredentials")
	for _, name := range logins.keys() {
		login := logins.object(name)
		if login.members == nil {
			continue
		}
		if r.Registries == nil {
			r.Registries = map[string]Registry{}
		}
		r.Registries[name] = Registry{
			Address:  p.text(login.at("address"), login.need("address", "the registry's host name")),
			Username: p.text(login.at("username"), login.need("username", "a user name")),
			Password: iothub.Secret(p.secret(login.at("password"), login.need("password", "a password"))),
		}
		login.noteRest()
	}
	settings.noteRest()
	o.noteRest()
	return r
}

// secret is text that must not show up in an error.
func (p *parser) secret(path string, value any) string {
	text, ok := value.(string)
	if !ok {
		p.fail(path, "not text", "a string")
	}
	return text
}

func (p *parser) systems(o object) map[string]System {
	systems := map[string]System{}
	for _, name := range o.keys() {
		if o.members[name] == nil {
			continue
		}
		if name != "edgeAgent" && name != "edgeHub" {
			p.fail(o.at(name), "unknown system module", "edgeAgent or edgeHub; other modules belong to modules")
			continue
		}
		systems[name] = p.system(p.object(o.at(name), o.members[name]))
	}
	return systems
}

func (p *parser) system(o object) System {
	s := System{Type: o.text("type"), Restart: choice(o, "restartPolicy", policies, Always), Pull: choice(o, "imagePullPolicy", pulls, OnCreate)}
	_ = o.get("status") // the system modules always run
	s.Order = p.order(o)
	s.Env = p.env(o.object("env"))
	settings := o.object("settings")
	s.Image = settings.text("image")
	s.createText = p.createText(settings)
	if s.createText != "" && s.createText != "{}" && s.createText != "null" {
		p.note(settings.at("createOptions"), "the system modules are part of the agent, their container options have no effect")
	}
	return s
}

func (p *parser) order(o object) uint32 {
	value := o.get("startupOrder")
	if value == nil {
		return LastOrder
	}
	return uint32(p.whole(o.at("startupOrder"), value, 0, LastOrder))
}

// env reads {"NAME":{"value":scalar}}.
func (p *parser) env(o object) map[string]string {
	var env map[string]string
	for _, name := range o.keys() {
		if o.members[name] == nil {
			continue
		}
		entry := o.object(name)
		value := entry.need("value", "a string, number or boolean")
		if env == nil {
			env = map[string]string{}
		}
		p.envName(o.path, name)
		env[name] = p.scalar(entry.at("value"), value)
		entry.noteRest()
	}
	return env
}

func (p *parser) envName(path, name string) {
	if name == "" || strings.ContainsAny(name, "=\x00") {
		p.fail(path, "variable name "+quote(name), "a name without \"=\"")
	}
}

// module reads one member of modules.
func (p *parser) module(name string, o object) Module {
	m := Module{Name: name}
	if why := badName(name); why != "" {
		p.fail(o.path, why, wantName)
	}
	if o.get("type") == nil {
		p.fail(o.at("type"), "missing", "one of docker, sandbox, native, hal")
	}
	m.Version = o.text("version")
	m.Type = choice(o, "type", types, Docker)
	m.Status = choice(o, "status", statuses, StatusRunning)
	m.Restart = choice(o, "restartPolicy", policies, Never)
	m.Pull = choice(o, "imagePullPolicy", pulls, OnCreate)
	m.Order = p.order(o)
	m.Env = p.env(o.object("env"))
	settings := o.object("settings")
	if settings.members == nil {
		p.fail(settings.path, "missing", "an object with image")
	}
	switch m.Type {
	case Docker:
		m.Settings = p.dockerSettings(settings)
		m.createText = p.createText(settings)
	case Hal:
		m.Settings = p.halSettings(settings)
	case Sandbox, Native:
		m.Settings = p.ownSettings(settings, m.Type)
	}
	_ = o.get("configuration") // set by the cloud: which deployment named the module
	o.noteRest()
	return m
}

// createText joins createOptions, createOptions01 … createOptions99.
func (p *parser) createText(settings object) string {
	value := settings.get("createOptions")
	var text strings.Builder
	switch v := value.(type) {
	case nil:
	case map[string]any:
		// Templates hold the object itself; the tool that fills them prints it as text.
		return printed(v)
	default:
		text.WriteString(p.text(settings.at("createOptions"), value))
	}
	gap := value == nil
	for i := 1; i <= 99; i++ {
		key := pieceKey(i)
		piece := settings.get(key)
		if piece == nil {
			gap = true
			continue
		}
		if gap {
			p.fail(settings.at(key), "a piece before it is missing", "createOptions, createOptions01 and so on without a gap")
			return ""
		}
		text.WriteString(p.text(settings.at(key), piece))
	}
	return text.String()
}

// pieceKey names the i-th continuation of createOptions.
func pieceKey(i int) string {
	digits := strconv.Itoa(i)
	if i < 10 {
		digits = "0" + digits
	}
	return "createOptions" + digits
}
