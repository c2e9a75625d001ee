package hal

import "context"

// Backend reaches hardware. Room hal/linux has the kernel's, [Sim] is the simulated one; both pass haltest.Backend.
type Backend interface {
	// Open opens a resource and returns a Device that also has the interface of its kind. It must be quick: nothing is converted,
	// no bus is touched but for the request of a line. An output line with Initial "safe" takes direction and value in one
	// request. Codes: Absent (not plugged in), Busy (names the consumer or the driver), Unsupported.
	Open(ctx context.Context, r Resource) (Device, error)
	// Adopt makes a device from a descriptor that a [Keeper] held over a restart, without touching the hardware; the device owns
	// fd afterwards. Any error means: does not match r. The caller closes fd then.
	Adopt(ctx context.Context, r Resource, fd int) (Device, error)
	// Scan lists what the machine has, without touching a bus unless probe says so.
	Scan(ctx context.Context, probe Probe) ([]Found, error)
	// Changes tells of arrivals and departures until ctx ends, and then closes the channel. Call it once.
	Changes(ctx context.Context) <-chan Change
}

// Probe says how far a scan may go.
type Probe bool

// The probes.
const (
	LookOnly    Probe = false
	TouchTheBus Probe = true // addresses of I2C buses are tried, but for those that a driver owns
)

// Device is an open resource. It is used by one goroutine at a time.
type Device interface {
	Close() error // lets go of the hardware; the server drives the safe value before it
}

// Line is an open GPIO line. Values are logical: active-low is applied once, by the backend.
type Line interface {
	Device
	Get(ctx context.Context) (bool, error) // reading an output changes nothing
	Set(ctx context.Context, on bool) error
	// Edges starts to read edges of an input; a second reader gets Busy. It may be read while other goroutines Get.
	Edges(ctx context.Context) (EdgeReader, error)
}

// EdgeReader gives the edges of one line. Seq is the kernel's sequence number of the line; Lost and Merged are already counted.
type EdgeReader interface {
	Read(ctx context.Context, into []Event) (int, error) // blocks for the first, takes what there is; Absent when unplugged
	Close() error
}

// Bus is one device on a bus.
type Bus interface {
	Device
	// Do runs the operations in order, nothing of others between them, and fills their Data. It stops at the first that fails.
	// I2C: a write with a read in one Op is one combined transaction.
	Do(ctx context.Context, ops []Op) error
}

// Op is one operation on a bus. Rights were checked before.
type Op struct {
	Write []byte // bytes to send: I2C, SPI (full duplex with Read = len), serial; Modbus: register or coil data, big-endian
	Read  int    // bytes wanted; for serial, at most
	Until int    // serial: read ends after this byte, if > 0 (a zero byte ends nothing)
	Data  []byte // what was read

	Fn   Function // Modbus
	Addr uint16   // Modbus: first register or coil
	N    uint16   // Modbus: how many
	ID   uint32   // CAN: identifier with the kernel's EFF bit
}

// Function is a Modbus function by its name in the API.
type Function string

// The functions.
const (
	ReadCoils     Function = "read-coils"
	ReadDiscrete  Function = "read-discrete"
	ReadHolding   Function = "read-holding"
	ReadInput     Function = "read-input"
	WriteCoils    Function = "write-coils"    // 5 for one, 15 for more; Write has one byte per coil, 0 or 1
	WriteHoldings Function = "write-holdings" // 6 for one, 16 for more; Write has two bytes per register
)

// FrameSource is a bus that also receives, as CAN does. Only frames that the resource's RX allows come.
type FrameSource interface {
	Frames(ctx context.Context) (EdgeReader, error)
}

// Sensor is a source of readings. Scale, curve and invalid values of the resource are the server's work: Read gives the raw number.
type Sensor interface {
	Device
	Read(ctx context.Context) (Value, error)
}

// Output is an analogue output: PWM, LED. Values are fractions from 0 to 1.
type Output interface {
	Device
	Get(ctx context.Context) (float64, error)
	Set(ctx context.Context, v float64) error
}

// Prompter is a device whose calls cannot wait for anything, as those on registers of the processor: its caller may make them itself.
// A resource whose device is none has a worker between.
type Prompter interface {
	Prompt() bool
}

// Holder is a device whose descriptor is worth keeping in the warden, so that it outlives the agent. The descriptor stays the
// device's own: a keeper takes a copy.
type Holder interface {
	FD(safe float64) (fd int, action SafeAction) // fd < 0: there is nothing to keep
}

// SafeAction is what makes an output safe, as data: one that holds the descriptor needs no configuration to do it.
type SafeAction struct {
	Set        bool   `json:"set,omitempty"`   // GPIO_V2_LINE_SET_VALUES with Bits and Mask; logical, as the request is
	Bits, Mask uint64 `json:",omitempty"`      //
	Bytes      []byte `json:"bytes,omitempty"` // else: written at offset 0, or to a stream; empty = nothing to do
}

// Keeper holds descriptors for an agent that may die; the warden is one. Keep copies fd and replaces what the key had; with fd < 0 it
// replaces action and state alone. Drop does the action before it lets go. Awake calls lapsed, before it returns, when the keeper took
// this process for missing (a stopped one is) and did its actions.
type Keeper interface {
	Keep(key string, fd int, safe SafeAction, state []byte) error // key <= 64 bytes, state <= 512
	Drop(key string) error
	List() ([]Kept, error) // descriptors are copies that the caller owns
	Awake(lapsed func())
}

// Kept is one entry of a Keeper.
type Kept struct {
	Key   string
	FD    int
	State []byte
}

// Found is one thing that a scan saw.
type Found struct {
	Kind   Kind    `json:"kind"`
	Match  []Field `json:"match"`            // as the owner would write it
	Detail string  `json:"detail,omitempty"` // for people
	Holder string  `json:"holder,omitempty"` // driver or program that has it; "" = it is free
	Unit   string  `json:"unit,omitempty"`   // of a sensor
	Scale  float64 `json:"scale,omitempty"`  // of a sensor
}

// Field is a key of the configuration with its value.
type Field struct {
	_     noCompare
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Change is an arrival or a departure. The server opens again, or closes, what Match says is concerned.
type Change struct {
	Present bool
	Node    string                // device path, for the log
	Match   func(r Resource) bool // nil = any: the server tries all that are absent
}

// Wave is what the simulation makes of an input.
type Wave struct {
	Wave    string    `json:"wave,omitempty" toml:"wave"`       // sine
	Min     float64   `json:"min,omitempty" toml:"min"`         //
	Max     float64   `json:"max,omitempty" toml:"max"`         //
	Period  Duration  `json:"period,omitzero" toml:"period"`    // of the sine, or of one step
	Steps   []float64 `json:"steps,omitempty" toml:"steps"`     // one after the other, each for a period, over and over
	CSV     string    `json:"-" toml:"csv"`                     // a file whose rows are the steps; whoever makes a Sim reads it
	Column  string    `json:"-" toml:"column"`                  // of that file, by the name in its first row
	Wire    string    `json:"wire,omitempty" toml:"wire"`       // this input follows that output
	Release string    `json:"release,omitempty" toml:"release"` // of an output line: input, keep, pull
	FIFO    int       `json:"fifo,omitempty" toml:"fifo"`       // events that the simulated kernel holds; 0 = 16
}
