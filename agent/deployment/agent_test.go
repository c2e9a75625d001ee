package deployment

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const azure = `{"schemaVersion":"1.1",
 "runtime":{"type":"docker","settings":{"minDockerVersion":"v1.25","loggingOptions":"",
   "registryCredentials":{"main":{"username":"u","password":"pa55","address":"registry.example"}}}},
 "systemModules":{
  "edgeAgent":{"type":"docker","settings":{"image":"mcr.example/agent:1.5","createOptions":"{}"},"env":{"X":{"value":"y"}}},
  "edgeHub":{"type":"docker","status":"running","restartPolicy":"always","startupOrder":0,
    "settings":{"image":"mcr.example/hub:1.5","createOptions":"{\"HostConfig\":{\"PortBindings\":{\"443/tcp\":[{\"HostPort\":\"443\"}]}}}"},
    "env":{"OptimizeForPerformance":{"value":"false"}}}},
 "modules":{
  "filter":{"version":"1.0","type":"docker","status":"running","restartPolicy":"always",
    "startupOrder":2,"imagePullPolicy":"on-create",
    "env":{"A":{"value":"1"},"N":{"value":2},"B":{"value":true}},
    "settings":{"image":"registry.example/filter:1","createOptions":"{\"Env\":[\"A=0\",\"C=x=y\"],","createOptions01":"\"Cmd\":[\"run\"]}"},
    "configuration":{"id":"c1"}},
  "gone":null}}`

const own = `{"schemaVersion":"1.1","modules":{"probe":{"type":"native","version":"3","restartPolicy":"on-failure","status":"stopped",
 "settings":{"image":"bundle:sha256:00","digest":"sha256:0123456789012345678901234567890123456789012345678901234567890123",
  "args":["/app/probe","-v"],"env":{"LEVEL":3},"user":"7:8","network":"host","limits":{"memory":"64MiB","cpu":0.5,"pids":20},
  "hal":["led0:w",{"name":"i2c1"}],"data":1048576,"health":{"probation":"2m","restarts":1},"stopTimeout":2.5}}}}`

func TestParseAgentOfAzure(t *testing.T) {
	t.Parallel()
	a := parseAgent(t, azure)
	got := fmt.Sprintf("%+v", a)
	want := `{SchemaVersion:1.1 Runtime:{Type:docker MinVersion:v1.25 LoggingOptions: Registries:map[main:{Address:registry.example Username:u Password:`
	if !strings.HasPrefix(got, want) || strings.Contains(got, "pa55") {
		t.Errorf("got %s\nwant it to begin %s, with the password hidden", got, want)
	}
	if a.Runtime.Registries["main"].Password.Reveal() != "pa55" {
		t.Error("the password is lost")
	}
	if len(a.Modules) != 1 || a.Find("filter") == nil || a.Find("gone") != nil {
		t.Fatalf("modules: got %v, want filter", a.Modules)
	}
	m := a.Find("filter")
	if m.Type != Docker || m.Status != StatusRunning || m.Restart != Always || m.Order != 2 || m.Version != "1.0" {
		t.Errorf("got %+v", m)
	}
	if got, want := fmt.Sprint(m.Environ()), "map[A:1 B:true C:x=y N:2]"; got != want {
		t.Errorf("environment: got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(m.Settings.Create.Cmd), "[run]"; got != want {
		t.Errorf("cmd: got %s, want %s", got, want)
	}
	if got, want := strings.Join(a.Notes, "\n"), "systemModules.edgeHub.settings.createOptions: the system modules are part of the agent, their container options have no effect"; got != want {
		t.Errorf("notes: got %s, want %s", got, want)
	}
}

func TestParseAgentOfOurOwn(t *testing.T) {
	t.Parallel()
	m := parseAgent(t, own).Find("probe")
	s := m.Settings
	if m.Type != Native || m.Status != StatusStopped || m.Restart != OnFailure || m.Order != LastOrder || m.Pull != OnCreate {
		t.Errorf("got %+v", m)
	}
	if s.Limits != (Limits{Memory: 64 << 20, CPU: 500, Pids: 20}) || s.Network != HostNetwork || s.Data != 1<<20 || s.User != "7:8" {
		t.Errorf("got %+v", s)
	}
	if s.Health.Probation != 2*time.Minute || s.Health.Restarts != 1 || s.StopTimeout != 2500*time.Millisecond {
		t.Errorf("got %+v, %v", s.Health, s.StopTimeout)
	}
	if string(s.Hal) != `["led0:w",{"name":"i2c1"}]` || s.Env["LEVEL"] != "3" || len(s.Args) != 2 {
		t.Errorf("got %s, %v, %v", s.Hal, s.Env, s.Args)
	}
}

func TestParseAgentRefuses(t *testing.T) {
	t.Parallel()
	image := `"settings":{"image":"x"}`
	for name, c := range map[string]struct {
		text, want string
		code       int
	}{
		"nothing at all":           {`{}`, `desired: empty; want schemaVersion, runtime and modules`, 417},
		"only a version":           {`{"$version":3}`, `desired: empty; want schemaVersion, runtime and modules`, 417},
		"no JSON":                  {`{`, `patch: JSON text ends early; want one JSON object`, 400},
		"no schema":                {`{"modules":{}}`, `schemaVersion: missing; want "1.0" or "1.1"`, 412},
		"a later schema":           {`{"schemaVersion":"2.0"}`, `schemaVersion: "2.0"; want "1.0" or "1.1"`, 412},
		"a later minor schema":     {`{"schemaVersion":"1.2"}`, `schemaVersion: "1.2"; want "1.0" or "1.1"`, 412},
		"a schema as number":       {`{"schemaVersion":1.1}`, `schemaVersion: number 1.1; want "1.0" or "1.1"`, 412},
		"a foreign runtime":        {`{"schemaVersion":"1.1","runtime":{"type":"k8s"}}`, `runtime.type: text "k8s"; want "docker" or "sandbox"`, 400},
		"a login without user":     {`{"schemaVersion":"1.1","runtime":{"type":"docker","settings":{"registryCredentials":{"r":{"address":"a"}}}}}`, `runtime.settings.registryCredentials.r.username: missing; want a user name`, 400},
		"an odd password":          {`{"schemaVersion":"1.1","runtime":{"type":"docker","settings":{"registryCredentials":{"r":{"address":"a","username":"u","password":77}}}}}`, `runtime.settings.registryCredentials.r.password: not text; want a string`, 400},
		"a third system module":    {`{"schemaVersion":"1.1","systemModules":{"other":{}}}`, `systemModules.other: unknown system module; want edgeAgent or edgeHub; other modules belong to modules`, 400},
		"modules as a list":        {`{"schemaVersion":"1.1","modules":[]}`, `modules: a list; want an object`, 400},
		"a name with a dot":        {`{"schemaVersion":"1.1","modules":{"a.b":{}}}`, `modules.a.b: the name "a.b"; want ` + wantName, 400},
		"a reserved name":          {`{"schemaVersion":"1.1","modules":{"$edgeHub":{}}}`, `modules.$edgeHub: the name "$edgeHub"; want ` + wantName, 400},
		"a name that climbs":       {`{"schemaVersion":"1.1","modules":{"../x":{}}}`, `modules.../x: the name "../x"; want ` + wantName, 400},
		"a name of 64":             {`{"schemaVersion":"1.1","modules":{"` + strings.Repeat("n", 64) + `":{}}}`, `modules.` + strings.Repeat("n", 64) + `: a name of 64 characters; want ` + wantName, 400},
		"no type":                  {deploymentOf(`{` + image + `}`), `modules.m.type: missing; want one of docker, sandbox, native, hal`, 400},
		"an unknown type":          {deploymentOf(`{"type":"vm",` + image + `}`), `modules.m.type: "vm"; want one of docker, sandbox, native, hal`, 400},
		"no settings":              {deploymentOf(`{"type":"docker"}`), `modules.m.settings: missing; want an object with image`, 400},
		"no image":                 {deploymentOf(`{"type":"docker","settings":{}}`), `modules.m.settings.image: missing; want an OCI reference, https://… or file://… of a bundle, or bundle:sha256:…`, 400},
		"an image with a space":    {deploymentOf(`{"type":"docker","settings":{"image":"a b"}}`), `modules.m.settings.image: "a b" holds a space or control character; want an OCI reference, https://… or file://… of a bundle, or bundle:sha256:…`, 400},
		"an open line":             {deploymentOf(`{"type":"sandbox","settings":{"image":"http://x/y"}}`), `modules.m.settings.image: "http://x/y"; want https://: images do not come over an open line`, 400},
		"a native OCI image":       {deploymentOf(`{"type":"native",` + image + `}`), `modules.m.settings.image: "x"; want a bundle (https://…, file://… or bundle:sha256:…) for a native module`, 400},
		"an unknown status":        {deploymentOf(`{"type":"docker","status":"dead",` + image + `}`), `modules.m.status: "dead"; want one of running, stopped`, 400},
		"an unknown policy":        {deploymentOf(`{"type":"docker","restartPolicy":"sometimes",` + image + `}`), `modules.m.restartPolicy: "sometimes"; want one of never, on-failure, on-unhealthy, always`, 400},
		"an order below zero":      {deploymentOf(`{"type":"docker","startupOrder":-1,` + image + `}`), `modules.m.startupOrder: -1; want a whole number from 0 to 4294967295`, 400},
		"an order too high":        {deploymentOf(`{"type":"docker","startupOrder":4294967296,` + image + `}`), `modules.m.startupOrder: 4294967296; want a whole number from 0 to 4294967295`, 400},
		"a bare variable":          {deploymentOf(`{"type":"docker","env":{"A":"1"},` + image + `}`), `modules.m.env.A: text "1"; want an object`, 400},
		"a variable without value": {deploymentOf(`{"type":"docker","env":{"A":{}},` + image + `}`), `modules.m.env.A.value: missing; want a string, number or boolean`, 400},
		"a variable of a list":     {deploymentOf(`{"type":"docker","env":{"A":{"value":[]}},` + image + `}`), `modules.m.env.A.value: a list; want a string, number or boolean`, 400},
		"a variable's odd name":    {deploymentOf(`{"type":"docker","env":{"A=B":{"value":1}},` + image + `}`), `modules.m.env: variable name "A=B"; want a name without "="`, 400},
		"our limits on docker":     {deploymentOf(`{"type":"docker","settings":{"image":"x","limits":{}}}`), `modules.m.settings.limits: not for a docker module; want type sandbox or native, or createOptions`, 400},
		"an unknown setting":       {deploymentOf(`{"type":"sandbox","settings":{"image":"x","netwrk":"host"}}`), `modules.m.settings.netwrk: unknown; want one of args, data, digest, env, hal, health, image, limits, network, permissions, ports, reach, stopTimeout, user, writable`, 400},
		"options on a sandbox":     {deploymentOf(`{"type":"sandbox","settings":{"image":"x","createOptions":"{}"}}`), `modules.m.settings.createOptions: unknown; want one of args, data, digest, env, hal, health, image, limits, network, permissions, ports, reach, stopTimeout, user, writable`, 400},
		"ports without a bridge":   {deploymentOf(`{"type":"sandbox","settings":{"image":"x","ports":["80:80"]}}`), `modules.m.settings.ports: set without network bridge; want "network": "bridge"`, 400},
		"a port that is none":      {deploymentOf(`{"type":"sandbox","settings":{"image":"x","network":"bridge","ports":["80:0"]}}`), `modules.m.settings.ports[0]: "80:0"; want [address:]host:inside[/udp], ports from 1 to 65535`, 400},
		"a module that cannot be":  {deploymentOf(`{"type":"sandbox","settings":{"image":"x","network":"bridge","reach":["../a"]}}`), `modules.m.settings.reach[0]: the name "../a"; want ` + wantName, 400},
		"a short digest":           {deploymentOf(`{"type":"sandbox","settings":{"image":"x","digest":"sha256:00"}}`), `modules.m.settings.digest: "sha256:00"; want "sha256:" and 64 hex digits`, 400},
		"an unknown permission":    {deploymentOf(`{"type":"sandbox","settings":{"image":"x","permissions":["mount"]}}`), `modules.m.settings.permissions[0]: "mount"; want trace or io_uring; the host's network is asked for by network: host`, 400},
		"a permission twice":       {deploymentOf(`{"type":"sandbox","settings":{"image":"x","permissions":["trace","trace"]}}`), `modules.m.settings.permissions[1]: "trace"; want each name once`, 400},
		"too little memory":        {deploymentOf(`{"type":"sandbox","settings":{"image":"x","limits":{"memory":"512KiB"}}}`), `modules.m.settings.limits.memory: "512KiB"; want 1048576 to 1125899906842624 bytes, as a number or as text with KiB, MiB or GiB`, 400},
		"memory that overflows":    {deploymentOf(`{"type":"sandbox","settings":{"image":"x","limits":{"memory":"9223372036854775807GiB"}}}`), `modules.m.settings.limits.memory: "9223372036854775807GiB"; want 1048576 to 1125899906842624 bytes, as a number or as text with KiB, MiB or GiB`, 400},
		"no CPU":                   {deploymentOf(`{"type":"sandbox","settings":{"image":"x","limits":{"cpu":0.001}}}`), `modules.m.settings.limits.cpu: number 0.001; want a number of cores from 0.01 to 1024`, 400},
		"a misspelt limit":         {deploymentOf(`{"type":"sandbox","settings":{"image":"x","limits":{"cpus":1}}}`), `modules.m.settings.limits.cpus: unknown; want one of cpu, io, memory, pids`, 400},
		"a grant of a number":      {deploymentOf(`{"type":"sandbox","settings":{"image":"x","hal":["a",1]}}`), `modules.m.settings.hal[1]: number 1; want a name, or an object that grants one`, 400},
		"a long probation":         {deploymentOf(`{"type":"sandbox","settings":{"image":"x","health":{"probation":"2h"}}}`), `modules.m.settings.health.probation: "2h"; want 0 to 3600 seconds, as a number or as text such as "90s"`, 400},
		"a user beyond the range":  {deploymentOf(`{"type":"sandbox","settings":{"image":"x","user":"70000"}}`), `modules.m.settings.user: "70000"; want "user" or "user:group", names or numbers below 65536`, 400},
		"an argument with NUL":     {deploymentOf(`{"type":"sandbox","settings":{"image":"x","args":["a\u0000"]}}`), `modules.m.settings.args[0]: text with a NUL character; want text without one`, 400},
		"a piece too many":         {deploymentOf(`{"type":"docker","settings":{"image":"x","createOptions":"{","createOptions02":"}"}}`), `modules.m.settings.createOptions02: a piece before it is missing; want createOptions, createOptions01 and so on without a gap`, 400},
		"broken options":           {deploymentOf(`{"type":"docker","settings":{"image":"x","createOptions":"{"}}`), `modules.m.settings.createOptions: no JSON: unexpected EOF; want Docker's container-create body as text`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := ParseAgent([]byte(c.text))
			if got := refusal(t, err); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if got := StatusOf(err); got.Code != c.code || got.Description != c.want {
				t.Errorf("status: got %+v, want code %d", got, c.code)
			}
			if a.Modules != nil {
				t.Errorf("a refused deployment gives modules: %v", a.Modules)
			}
		})
	}
}

func TestUnknownMembersAreNoted(t *testing.T) {
	t.Parallel()
	a := parseAgent(t, `{"schemaVersion":"1.0","integrity":{},"extra":1,"modules":{"m":{"type":"docker","restartpolicy":"always","settings":{"image":"x","more":1}}}}`)
	got := strings.Join(a.Notes, "\n")
	want := `modules.m.settings.more: unknown here, has no effect
modules.m.restartpolicy: unknown here, has no effect
integrity: signatures of manifests are not checked
extra: unknown here, has no effect`
	if got != want {
		t.Errorf("notes: got\n%s\nwant\n%s", got, want)
	}
}

func TestHashIsTheSameInEveryAgent(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	for _, m := range []Module{*parseAgent(t, azure).Find("filter"), *parseAgent(t, own).Find("probe"), {Settings: Settings{Image: "x"}}} {
		fmt.Fprintln(&lines, m.Hash(), m.Name)
	}
	golden(t, "hash.golden", lines.String())
}

func TestHashChangesWithWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	base := *parseAgent(t, own).Find("probe")
	for name, c := range map[string]struct {
		change func(m *Module)
		same   bool
	}{
		"version":       {func(m *Module) { m.Version = "4" }, false},
		"type":          {func(m *Module) { m.Type = Sandbox }, false},
		"image":         {func(m *Module) { m.Settings.Image = "bundle:sha256:01" }, false},
		"environment":   {func(m *Module) { m.Env = map[string]string{"A": ""} }, false},
		"memory":        {func(m *Module) { m.Settings.Limits.Memory++ }, false},
		"network":       {func(m *Module) { m.Settings.Network = NoNetwork }, false},
		"grants":        {func(m *Module) { m.Settings.Hal = nil }, false},
		"a volume":      {func(m *Module) { m.Settings.Create.Volumes = []Volume{{Name: "a", Target: "/a"}} }, false},
		"status":        {func(m *Module) { m.Status = StatusRunning }, true},
		"restartPolicy": {func(m *Module) { m.Restart = Never }, true},
		"order":         {func(m *Module) { m.Order = 1 }, true},
		"pull policy":   {func(m *Module) { m.Pull = NeverPull }, true},
		"health":        {func(m *Module) { m.Settings.Health = Health{} }, true},
		"stop timeout":  {func(m *Module) { m.Settings.StopTimeout = 0 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := base
			c.change(&m)
			if got := m.Hash() == base.Hash(); got != c.same {
				t.Errorf("same hash: got %v, want %v", got, c.same)
			}
		})
	}
}

func FuzzParseAgent(f *testing.F) {
	f.Add([]byte(azure))
	f.Add([]byte(own))
	f.Add([]byte(deploymentOf(`{"type":"docker","settings":{"image":"x","createOptions":{"HostConfig":{"Binds":["a:/b"]}}}}`)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := ParseAgent(raw)
		if refusal(t, err) != "" {
			return
		}
		again, err := ParseAgent(raw)
		if err != nil || len(again.Modules) != len(a.Modules) {
			t.Fatalf("a second time: %v", err)
		}
		for i, m := range a.Modules {
			if m.Hash() != again.Modules[i].Hash() {
				t.Fatalf("%s has two hashes", m.Name)
			}
		}
		for _, s := range Plan(nil, a.Modules) {
			if a.Find(s.Module) == nil || s.Verb == Stop || s.Verb == Remove {
				t.Fatalf("step %v on an empty device", s)
			}
		}
		if _, _, err := Difference([]byte(`{}`), NewAgentReport(Build{}, Platform{}, a, nil, time.Time{})); err != nil {
			t.Fatalf("report: %v", err)
		}
	})
}
