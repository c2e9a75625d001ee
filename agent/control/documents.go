package control

import (
	"encoding/json"
	"time"
)

// Status is the agent at a glance.
type Status struct {
	Version      string       `json:"version"`
	Device       string       `json:"device"`
	Hub          string       `json:"hub,omitempty"` // absent on a standalone device
	Pid          int          `json:"pid"`           // of the agent, not of its warden
	Gateway      string       `json:"gateway"`
	Config       string       `json:"config,omitempty"` // path where it looks for its configuration
	Started      time.Time    `json:"started"`          // of this agent process
	ReadySeconds float64      `json:"readySeconds"`     // from process start until modules could publish
	Deployment   Deployment   `json:"deployment"`
	Links        []Link       `json:"links"`
	Modules      []Module     `json:"modules"`
	Transfer     *Transfer    `json:"transfer,omitempty"` // the image that arrives now
	Queues       []Queue      `json:"queues"`
	Routes       []Route      `json:"routes"`
	Store        Store        `json:"store"`
	Sandbox      []Capability `json:"sandbox"`
	Problems     []string     `json:"problems"`         // what an operator should act on; empty when all is well
	Advice       []string     `json:"advice,omitempty"` // where the board disagrees with the safe levels of its outputs
}

// Deployment says which deployment is in force.
type Deployment struct {
	Version     int64  `json:"version"`     // $version of $edgeAgent's desired properties; 0 = none yet
	Code        int    `json:"code"`        // 200 applied, 406 under way, 400 malformed, 412 schema, 417 empty, 500 not all could be done
	Description string `json:"description"` // why, when the code is not 200
}

// Link is one identity's connection to the hub.
type Link struct {
	Identity  string    `json:"identity"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Sent      uint64    `json:"sent"`            // messages the hub acknowledged since the agent started
	Error     string    `json:"error,omitempty"` // why it is not connected
}

// Module is one module of the deployment and its instance.
type Module struct {
	Name     string    `json:"name"`
	Type     string    `json:"type"`
	Image    string    `json:"image"`
	Status   string    `json:"status"` // running, paused, stopped, failed, backoff, unhealthy, unknown
	Why      string    `json:"why,omitempty"`
	Pid      int       `json:"pid,omitempty"` // on the host
	Started  time.Time `json:"started,omitzero"`
	Restarts int       `json:"restarts"`
	ExitCode int       `json:"exitCode"`
	Exited   time.Time `json:"exited,omitzero"`
	Memory   int64     `json:"memoryBytes,omitempty"`
	Next     time.Time `json:"nextStart,omitzero"` // when a module that is backing off is started again
	Bounds   []string  `json:"bounds,omitempty"`   // that it ran into in the last ten minutes
}

// Reason says why a module is or is not running.
type Reason struct {
	Module string    `json:"module"`
	Status string    `json:"status"` // as in Module
	Why    string    `json:"why"`    // one line
	Next   time.Time `json:"nextStart,omitzero"`
}

// Usage is what a running module uses. What the kernel does not count is 0 or absent.
type Usage struct {
	Module         string   `json:"module"`
	CPUSeconds     float64  `json:"cpuSeconds"`       // since its start
	Throttled      float64  `json:"throttledSeconds"` // it wanted to run, and its limit did not let it
	Memory         uint64   `json:"memoryBytes"`
	MemoryPeak     uint64   `json:"memoryPeakBytes"`
	MemoryLimit    uint64   `json:"memoryLimitBytes"` // 0 = none
	Pids           uint64   `json:"pids"`
	PidsLimit      uint64   `json:"pidsLimit"`
	PidsRefused    uint64   `json:"pidsRefused"` // forks that the limit refused
	OOMKills       uint64   `json:"oomKills"`
	Read           uint64   `json:"readBytes"` // from block devices
	Written        uint64   `json:"writtenBytes"`
	CPUPressure    *float64 `json:"cpuPressure,omitempty"` // share of the last ten seconds in which it waited, per cent
	MemoryPressure *float64 `json:"memoryPressure,omitempty"`
	IOPressure     *float64 `json:"ioPressure,omitempty"`
}

// Transfer is an image on its way to the device.
type Transfer struct {
	Reference   string `json:"reference"`
	Image       string `json:"image,omitempty"` // name and version, once known
	Phase       string `json:"phase"`           // check, transfer, verify
	Bytes       int64  `json:"bytes"`           // of the image that are here
	Total       int64  `json:"totalBytes"`      // of the image; 0 = not known yet
	Received    int64  `json:"receivedBytes"`   // over the network
	Rate        int64  `json:"bytesPerSecond"`  // of the image; 0 = not known yet
	LeftSeconds int64  `json:"leftSeconds"`     // at this rate; 0 = not known
}

// Queue is one lane of the durable queue.
type Queue struct {
	Sink     string    `json:"sink"`
	Priority int       `json:"priority"`
	Messages int64     `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest,omitzero"`
	Expired  uint64    `json:"expired"`
	Dropped  uint64    `json:"dropped"`
}

// Route is one route in force and what its messages are given.
type Route struct {
	Name       string `json:"name"`
	Route      string `json:"route"`
	Priority   int    `json:"priority"`
	TTLSeconds int64  `json:"timeToLiveSecs"`  // 0 = for ever
	Clock      string `json:"timeToLiveClock"` // powered-on, wall
	Durability string `json:"durability"`      // strict, relaxed(T): what a PUBACK or a 204 means
	Eviction   string `json:"eviction"`        // refuse, oldest-first, newest-per-key(NAME)
}

// Capability is one thing the kernel offers sandboxes, or does not.
type Capability struct {
	Name string `json:"name"`
	Have bool   `json:"have"`
	Note string `json:"note,omitempty"`
}

// Step is one thing a deployment will do.
type Step struct {
	Verb   string `json:"verb"`
	Module string `json:"module"`
	Why    string `json:"why"`
}

// Plan is what applying a manifest would do, and Applied what it did.
type Plan struct {
	Steps []Step   `json:"steps"`
	Notes []string `json:"notes,omitempty"` // accepted but without effect

	// Version is the deployment that an apply stored, or the one in force where it changed nothing of $edgeAgent; 0 = of a plan.
	Version int64 `json:"version,omitempty"`
}

// LogRequest chooses log lines of one module.
type LogRequest struct {
	Tail   int       // the last n lines; negative = all that is kept
	Since  time.Time // zero = no bound
	Follow bool      // go on with what is written from now on
	Stream string    // stdout or stderr; empty = both
	JSON   bool      // an object for each line: time, stream, line, or droppedLines and droppedBytes where output is missing

	// Place is where a follower is: what comes first when it is empty, else only what comes after it; moved on with each line. nil = the
	// caller does not go on when the agent is back.
	Place *string
}

// fault is the body of every answer that is not a success.
type fault struct {
	Message string `json:"message"`
}

// Twin is one identity's twin as a client would see it.
type Twin = json.RawMessage
