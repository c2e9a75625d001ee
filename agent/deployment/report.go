package deployment

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// reportSchema is the schemaVersion of both reports.
const reportSchema = "1.0"

// Runtime statuses of a module in a report.
const (
	RuntimeRunning   = "running"
	RuntimeStopped   = "stopped"
	RuntimeFailed    = "failed"
	RuntimeBackoff   = "backoff"
	RuntimeUnhealthy = "unhealthy"
	RuntimeUnknown   = "unknown"
)

// Build is the version of the agent.
type Build struct {
	Version string `json:"version"`
	Build   string `json:"build"`
	Commit  string `json:"commit"`
}

// DesiredStatus is what became of a desired section.
type DesiredStatus struct {
	Code        int    `json:"code"`
	Description string `json:"description"`
}

// StatusOf is the status of a desired section whose parsing or application ended with err.
func StatusOf(err error) DesiredStatus {
	if err == nil {
		return DesiredStatus{Code: CodeOK}
	}
	code := CodeFailed
	if e, ok := errors.AsType[*Error](err); ok {
		code = e.Code
	}
	return DesiredStatus{Code: code, Description: clip(err.Error())}
}

// clip keeps a text within what a twin holds.
func clip(text string) string {
	const most = 1000
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Platform is what the device is.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"` // as uname has it: "x86_64", "aarch64", "armv7l"
	Version      string `json:"version"`
}

// Life is what became of a module at run time.
type Life struct {
	Status      string // one of the Runtime… words
	Description string
	ImageHash   string // digest of what is installed, "sha256:…"; "" when nothing is
	ExitCode    int
	Restarts    int
	Started     time.Time // zero times are reported as year 1
	Exited      time.Time
	Restarted   time.Time
	Drift       []string // where its sandbox differs from what it was granted, a line each; the first [maxDrift] are reported
	Pins        Pins
}

// Pins is what a module was refused of pins, buses and sensors, and what was made safe in its place since the agent began. Nothing of it is
// reported while Last is "".
type Pins struct {
	Denied uint64    `json:"denied"`
	Safe   uint64    `json:"safe"`
	Last   string    `json:"last"` // the newest of both, with the name of the resource
	At     time.Time `json:"lastTimeUtc"`
}

// AgentReport is the reported section of $edgeAgent.
type AgentReport struct {
	SchemaVersion      string                  `json:"schemaVersion"`
	Version            Build                   `json:"version"`
	LastDesiredVersion int64                   `json:"lastDesiredVersion"`
	LastDesiredStatus  DesiredStatus           `json:"lastDesiredStatus"`
	Runtime            runtimeReport           `json:"runtime"`
	SystemModules      map[string]systemReport `json:"systemModules"`
	Modules            map[string]moduleReport `json:"modules"`
}

type runtimeReport struct {
	Type     string            `json:"type"`
	Settings map[string]string `json:"settings"`
	Platform Platform          `json:"platform"`
}

type envReport struct {
	Value string `json:"value"`
}

// lifeReport is what reports of both kinds of modules say of their life.
type lifeReport struct {
	RuntimeStatus    string    `json:"runtimeStatus"`
	Description      string    `json:"statusDescription"`
	ExitCode         int       `json:"exitCode"`
	LastStartTimeUtc time.Time `json:"lastStartTimeUtc"`
	LastExitTimeUtc  time.Time `json:"lastExitTimeUtc"`
}

type systemReport struct {
	Type            string               `json:"type"`
	ImagePullPolicy string               `json:"imagePullPolicy"`
	Settings        map[string]string    `json:"settings"`
	Env             map[string]envReport `json:"env"`
	lifeReport
	hubReport
}

// hubReport is what only edgeHub has of the members of an ordinary module.
type hubReport struct {
	Status             string     `json:"status,omitempty"`
	RestartPolicy      string     `json:"restartPolicy,omitempty"`
	StartupOrder       *uint32    `json:"startupOrder,omitempty"`
	RestartCount       *int       `json:"restartCount,omitempty"`
	LastRestartTimeUtc *time.Time `json:"lastRestartTimeUtc,omitempty"`
}

type moduleReport struct {
	Version         string               `json:"version"`
	Type            string               `json:"type"`
	Status          string               `json:"status"`
	RestartPolicy   string               `json:"restartPolicy"`
	ImagePullPolicy string               `json:"imagePullPolicy"`
	StartupOrder    uint32               `json:"startupOrder"`
	Settings        map[string]string    `json:"settings"`
	Env             map[string]envReport `json:"env"`
	lifeReport
	RestartCount       int       `json:"restartCount"`
	LastRestartTimeUtc time.Time `json:"lastRestartTimeUtc"`
	Drift              []string  `json:"drift,omitempty"`
	Pins               *Pins     `json:"hal,omitempty"`
}

// maxDrift bounds the lines of drift in a report: a twin holds 32 kB.
const maxDrift = 8

// NewAgentReport is the report on a deployment: a is what is applied, lives what became of its modules, up since when the agent runs.
// The zero Agent gives the report of an agent without a deployment.
func NewAgentReport(build Build, platform Platform, a Agent, lives map[string]Life, up time.Time) AgentReport {
	r := AgentReport{
		SchemaVersion: reportSchema, Version: build, LastDesiredStatus: DesiredStatus{Code: CodeUnknown},
		Runtime:       runtimeReport{Type: "docker", Settings: map[string]string{}, Platform: platform},
		SystemModules: map[string]systemReport{}, Modules: map[string]moduleReport{},
	}
	if a.Runtime.Type != "" {
		r.Runtime.Type = a.Runtime.Type
	}
	r.Runtime.Settings["minDockerVersion"] = a.Runtime.MinVersion
	r.Runtime.Settings["loggingOptions"] = a.Runtime.LoggingOptions
	for _, name := range []string{"edgeAgent", "edgeHub"} {
		r.SystemModules[name] = reportSystem(name, a.System[name], up)
	}
	for _, m := range a.Modules {
		r.Modules[m.Name] = reportModule(m, lives[m.Name])
	}
	return r
}

// Lean is the report without what a deployment may make large: environment and options. It fits a twin where the whole does not.
func (r AgentReport) Lean() AgentReport {
	modules := make(map[string]moduleReport, len(r.Modules))
	for name, m := range r.Modules {
		m.Env, m.Settings = map[string]envReport{}, map[string]string{"image": m.Settings["image"], "imageHash": m.Settings["imageHash"]}
		modules[name] = m
	}
	r.Modules = modules
	systems := make(map[string]systemReport, len(r.SystemModules))
	for name, m := range r.SystemModules {
		m.Env, m.Settings = map[string]envReport{}, map[string]string{"image": m.Settings["image"]}
		systems[name] = m
	}
	r.SystemModules = systems
	return r
}

func reportSystem(name string, s System, up time.Time) systemReport {
	r := systemReport{
		Type: s.Type, ImagePullPolicy: s.Pull.String(), Env: reportEnv(s.Env),
		Settings:   reportSettings(s.Image, "", s.createText),
		lifeReport: lifeReport{RuntimeStatus: RuntimeRunning, LastStartTimeUtc: utc(up), Description: RuntimeRunning},
	}
	if r.Type == "" {
		r.Type = "docker"
	}
	if name == "edgeHub" {
		restarts, restarted, order := 0, time.Time{}, s.Order
		r.hubReport = hubReport{
			Status: StatusRunning.String(), RestartPolicy: Always.String(), StartupOrder: &order,
			RestartCount: &restarts, LastRestartTimeUtc: &restarted,
		}
	}
	return r
}

func reportModule(m Module, life Life) moduleReport {
	status := life.Status
	if status == "" {
		status = RuntimeUnknown
	}
	var pins *Pins
	if p := life.Pins; p.Last != "" {
		p.Last, p.At = clip(p.Last), utc(p.At)
		pins = &p
	}
	return moduleReport{
		Version: m.Version, Type: m.Type.String(), Status: m.Status.String(), RestartPolicy: m.Restart.String(),
		ImagePullPolicy: m.Pull.String(), StartupOrder: m.Order, Env: reportEnv(m.Env),
		Settings: reportSettings(m.Settings.Image, life.ImageHash, m.createText),
		lifeReport: lifeReport{
			RuntimeStatus: status, Description: clip(life.Description), ExitCode: life.ExitCode,
			LastStartTimeUtc: utc(life.Started), LastExitTimeUtc: utc(life.Exited),
		},
		RestartCount: life.Restarts, LastRestartTimeUtc: utc(life.Restarted), Drift: life.Drift[:min(len(life.Drift), maxDrift)], Pins: pins,
	}
}

// utc drops what would make a report differ without saying anything: zone, monotonic clock, parts of a millisecond.
func utc(t time.Time) time.Time { return t.Round(0).UTC().Truncate(time.Millisecond) }

func reportEnv(env map[string]string) map[string]envReport {
	out := make(map[string]envReport, len(env))
	for name, value := range env {
		out[name] = envReport{value}
	}
	return out
}

// pieceSize is how many characters of createOptions one member of a report holds.
const pieceSize = 512

func reportSettings(image, hash, create string) map[string]string {
	if create == "" {
		create = "{}"
	}
	out := map[string]string{"image": image, "imageHash": hash}
	runes := []rune(create)
	for i := 0; len(runes) > 0 && i < 100; i++ {
		n := min(pieceSize, len(runes))
		key := "createOptions"
		if i > 0 {
			key = pieceKey(i)
		}
		out[key] = string(runes[:n])
		runes = runes[n:]
	}
	return out
}

// HubReport is the reported section of $edgeHub. Create with [NewHubReport].
type HubReport struct {
	SchemaVersion      string            `json:"schemaVersion"`
	Version            Build             `json:"version"`
	LastDesiredVersion int64             `json:"lastDesiredVersion"`
	LastDesiredStatus  DesiredStatus     `json:"lastDesiredStatus"`
	Clients            map[string]Client `json:"clients"` // by [ClientKey]
}

// Client says whether a client of the local endpoint is connected and since when.
type Client struct {
	Status           string     `json:"status"`
	ConnectedTime    *time.Time `json:"lastConnectedTimeUtc,omitempty"`
	DisconnectedTime *time.Time `json:"lastDisconnectedTimeUtc,omitempty"`
}

// NewHubReport is the report before anything was desired: nobody is connected.
func NewHubReport(build Build) HubReport {
	return HubReport{
		SchemaVersion: reportSchema, Version: build, LastDesiredStatus: DesiredStatus{Code: CodeUnknown},
		Clients: map[string]Client{},
	}
}

// NewClient reports on one client. A device that is not connected is not reported at all, a module is: leave the device out.
func NewClient(connected bool, since time.Time) Client {
	since = utc(since)
	if connected {
		return Client{Status: "Connected", ConnectedTime: &since}
	}
	return Client{Status: "Disconnected", DisconnectedTime: &since}
}

// ClientKey is the name of a client in a [HubReport]: its identity as a legal key of a twin.
func ClientKey(id iothub.ID) string {
	return strings.NewReplacer(".", "%2E", "$", "%24", " ", "%20", "#", "%23").Replace(id.String())
}

// Difference is the merge patch that makes a reported section say what report says: changed members only, null for those that are gone
// from its objects. Members of the section that a report does not have at its top are left alone. False when there is nothing to say.
func Difference(reported json.RawMessage, report any) (json.RawMessage, bool, error) {
	text, err := json.Marshal(report)
	if err != nil {
		return nil, false, fmt.Errorf("print report: %w", err)
	}
	want, err := twin.ParsePatch(text)
	if err != nil {
		return nil, false, fmt.Errorf("read report: %w", err)
	}
	have, err := twin.ParsePatch(reported)
	if err != nil {
		return nil, false, fmt.Errorf("read reported section: %w", err)
	}
	for key := range have {
		if _, ours := want[key]; !ours {
			delete(have, key)
		}
	}
	patch := twin.Diff(have, want)
	return json.RawMessage(printed(patch)), len(patch) > 0, nil
}
