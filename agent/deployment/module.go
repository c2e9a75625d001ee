package deployment

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Type says from what a module runs.
type Type uint8

// The types of modules.
const (
	Docker  Type = iota // an image named by a manifest for Azure IoT Edge, options in createOptions
	Sandbox             // a bundle or image with its own root
	Native              // a native bundle on a read-only view of the host
	Hal                 // no program: the agent reads sensors and drives outputs in the module's name
)

var types = []named[Type]{{"docker", Docker}, {"sandbox", Sandbox}, {"native", Native}, {"hal", Hal}}

// String is the type as a manifest writes it.
func (t Type) String() string { return nameOf(types, t) }

// Status is what an operator wants of a module.
type Status uint8

// The wanted statuses.
const (
	StatusRunning Status = iota
	StatusStopped
)

var statuses = []named[Status]{{"running", StatusRunning}, {"stopped", StatusStopped}}

// String is the status as a manifest writes it.
func (s Status) String() string { return nameOf(statuses, s) }

// RestartPolicy says which end of a module is followed by a start.
type RestartPolicy uint8

// The policies.
const (
	Never       RestartPolicy = iota
	OnFailure                 // exit code other than 0, a signal, or unhealthy
	OnUnhealthy               // failed or unhealthy
	Always                    // any end
)

var policies = []named[RestartPolicy]{{"never", Never}, {"on-failure", OnFailure}, {"on-unhealthy", OnUnhealthy}, {"always", Always}}

// String is the policy as a manifest writes it.
func (r RestartPolicy) String() string { return nameOf(policies, r) }

// PullPolicy says when an image may be fetched.
type PullPolicy uint8

// The policies.
const (
	OnCreate  PullPolicy = iota
	NeverPull            // only an image that is present may run
)

var pulls = []named[PullPolicy]{{"on-create", OnCreate}, {"never", NeverPull}}

// String is the policy as a manifest writes it.
func (p PullPolicy) String() string { return nameOf(pulls, p) }

// Network says what a module sees of the network.
type Network uint8

// The networks. A module reaches the agent in each.
const (
	NoNetwork     Network = iota // only its own loopback
	HostNetwork                  // the network of the host
	BridgeNetwork                // an address of its own behind the host's
)

// String is the network as settings write it.
func (n Network) String() string { return nameOf(networks, n) }

var networks = []named[Network]{{"none", NoNetwork}, {"host", HostNetwork}, {"bridge", BridgeNetwork}}

func nameOf[T comparable](set []named[T], value T) string {
	for _, n := range set {
		if n.value == value {
			return n.name
		}
	}
	return "unknown"
}

// LastOrder is the startup order of a module that names none: behind all that do.
const LastOrder = 1<<32 - 1

// Module is one module as wanted.
type Module struct {
	Name     string // module id: letters, digits, "-", "_", "+"; at most 63
	Version  string // free text; a new one restarts the module
	Type     Type
	Status   Status
	Restart  RestartPolicy
	Pull     PullPolicy
	Order    uint32            // lower ones are started first; equal ones in no particular order
	Env      map[string]string // of the manifest; wins over Settings.Env
	Settings Settings

	createText string // createOptions as given, for the report
}

// Settings say what runs and within which bounds. Zero values mean what the image or the device's configuration says.
type Settings struct {
	Image       string            `json:"image"`            // OCI reference, https:// or file:// URL of a bundle, or bundle:sha256:…
	Digest      string            `json:"digest,omitempty"` // "sha256:" and 64 hex digits that the image must have
	Args        []string          `json:"args,omitempty"`   // replaces the program and arguments of the image
	Env         map[string]string `json:"env,omitempty"`    // on top of the image's
	User        string            `json:"user,omitempty"`   // "user" or "user:group" inside the sandbox
	Network     Network           `json:"network,omitempty"`
	Ports       []Port            `json:"ports,omitempty"` // of the host that lead in; only with BridgeNetwork
	Reach       []string          `json:"reach,omitempty"` // modules it may open connections to; only with BridgeNetwork
	Limits      Limits            `json:"limits,omitzero"`
	Data        int64             `json:"data,omitempty"`        // bytes of durable space at /data; 0 = none
	Writable    int64             `json:"writable,omitempty"`    // bytes of changes to the image's root, in memory; 0 = it is read-only
	Hal         json.RawMessage   `json:"hal,omitempty"`         // list of grants, checked by the hardware room
	Permissions []string          `json:"permissions,omitempty"` // walls to open, if the device's owner permits it
	Publish     json.RawMessage   `json:"publish,omitempty"`     // type hal: what is read and where it goes, checked by the agent
	Outputs     bool              `json:"outputs,omitempty"`     // type hal: desired.outputs are driven
	Methods     bool              `json:"methods,omitempty"`     // type hal: direct methods read, write and pulse
	Health      Health            `json:"-"`
	StopTimeout time.Duration     `json:"-"` // from the stop signal to SIGKILL; 0 = DefaultStopTimeout
	Create      CreateOptions     `json:"create,omitzero"`
}

// DefaultStopTimeout is the time a module has to end after its stop signal.
const DefaultStopTimeout = 10 * time.Second

// Limits bound what a module may use; 0 = the device's default.
type Limits struct {
	Memory int64 `json:"memory,omitempty"` // bytes
	Swap   int64 `json:"swap,omitempty"`   // bytes on top of Memory
	CPU    int64 `json:"cpu,omitempty"`    // thousandths of a core
	Pids   int64 `json:"pids,omitempty"`   // processes and threads
	Files  int64 `json:"files,omitempty"`  // open files of a process
	Tmp    int64 `json:"tmp,omitempty"`    // bytes of /tmp and of /dev/shm
	IO     int64 `json:"io,omitempty"`     // bytes a second read, and as many written, on each disk
}

// Health says how a module shows that it is well, and what happens when it is not. Beside what is here it may say so itself on its socket.
type Health struct {
	Probation time.Duration // from its start when newly deployed; 0 = DefaultProbation
	Restarts  int           // ends that are forgiven in that time

	Heartbeat time.Duration // it must say that it is well at least this often; 0 = it need not
	Command   []string      // run inside; exit code 0 = well
	TCP       string        // host:port inside that must take a connection
	HTTP      string        // URL inside, http://host:port/path, that must answer with a code below 400
	Interval  time.Duration // between two checks; 0 = DefaultHealthInterval
	Timeout   time.Duration // of one check; 0 = DefaultHealthTimeout
	Retries   int           // checks in a row that must fail; 0 = DefaultHealthRetries
	Start     time.Duration // from its start, in which nothing counts as a failure; 0 = DefaultHealthStart, below = none
	Unhealthy Remedy

	NoImage       bool          // the image's own check is not run
	Docker        bool          // what is not given here is the image's, else Docker's default, and the first success ends Start
	StartInterval time.Duration // between two checks in Start; 0 = Interval
}

// Checked tells whether the agent has to look.
func (h Health) Checked() bool {
	return h.Heartbeat > 0 || len(h.Command) > 0 || h.TCP != "" || h.HTTP != ""
}

// Remedy is what happens to a module that is not well.
type Remedy uint8

// The remedies.
const (
	RemedyRestart Remedy = iota // it is ended and started again, unless its restart policy is never
	RemedyStop                  // it is ended and stays down
	RemedyReport                // it runs on, and is reported
)

var remedies = []named[Remedy]{{"restart", RemedyRestart}, {"stop", RemedyStop}, {"report", RemedyReport}}

// String is the remedy as settings write it.
func (r Remedy) String() string { return nameOf(remedies, r) }

// Defaults of health checks.
const (
	DefaultHealthInterval = 30 * time.Second
	DefaultHealthTimeout  = 10 * time.Second
	DefaultHealthRetries  = 3
	DefaultHealthStart    = 30 * time.Second
)

// DefaultProbation is how long a newly deployed module is watched.
const DefaultProbation = 30 * time.Second

// CreateOptions are the members of Docker's container-create body that have no place among the other settings.
type CreateOptions struct {
	Entrypoint []string          `json:"entrypoint,omitempty"` // replaces the image's
	Cmd        []string          `json:"cmd,omitempty"`        // replaces the image's
	WorkingDir string            `json:"workingDir,omitempty"`
	Hostname   string            `json:"hostname,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	StopSignal string            `json:"stopSignal,omitempty"` // as written: "SIGINT", "2"
	Hosts      []Host            `json:"hosts,omitempty"`      // additional lines of /etc/hosts
	Volumes    []Volume          `json:"volumes,omitempty"`    // durable directories of this module
	Devices    []Device          `json:"devices,omitempty"`    // device nodes that the device's owner may have named
}

// Device is a device node of the host, as Docker's --device names one.
type Device struct {
	Path   string `json:"path"`             // on the host, a clean path below /dev
	Target string `json:"target,omitempty"` // in the sandbox; "" = Path
	Write  bool   `json:"write,omitempty"`
}

// Host is one line of /etc/hosts.
type Host struct {
	Name string     `json:"name"`
	Addr netip.Addr `json:"addr"`
}

// Volume is a durable directory that belongs to the module.
type Volume struct {
	Name     string `json:"name"`   // unique in the module: letters, digits, "-", "_", "."
	Target   string `json:"target"` // clean absolute path in the sandbox
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// Environ is the environment the manifest asks for, both sources joined.
func (m Module) Environ() map[string]string {
	env := make(map[string]string, len(m.Settings.Env)+len(m.Env))
	maps.Copy(env, m.Settings.Env)
	maps.Copy(env, m.Env)
	return env
}

// Hash is the identity of everything that needs a restart when it changes: program, environment, bounds, version, not the policies.
// It is the same in every agent that reads the same manifest.
func (m Module) Hash() string {
	text, err := json.Marshal(struct {
		Version  string            `json:"version,omitempty"`
		Type     string            `json:"type"`
		Env      map[string]string `json:"env,omitempty"`
		Settings Settings          `json:"settings"`
	}{m.Version, m.Type.String(), m.Env, m.Settings})
	if err != nil {
		// Only Hal could fail to print, and it was printed by the parser.
		panic("deployment: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// badName says why a module cannot have this name, "" if it can. Names become file and host names on the device, hence the length.
func badName(name string) string {
	const most = 63
	if name == "" || len(name) > most {
		return "a name of " + strconv.Itoa(len(name)) + " characters"
	}
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || strings.IndexByte("-_+", c) < 0) {
			return "the name " + quote(name)
		}
	}
	return ""
}

const wantName = "1 to 63 letters, digits, \"-\", \"_\" or \"+\", a letter or digit first"
