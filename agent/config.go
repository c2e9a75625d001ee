package agent

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// Config is the device's configuration, as the file says it. The zero value is a standalone agent: no upstream, the
// bundle keys of [DefaultKeyDir], deployments only from `sandpiper deploy apply`.
type Config struct {
	StateDir    string      `toml:"state_dir"` // what must survive a power cut; default /var/lib/sandpiper
	RunDir      string      `toml:"run_dir"`   // what must not survive a reboot, on tmpfs; default /run/sandpiper
	Device      Device      `toml:"device"`
	Upstream    Upstream    `toml:"upstream"`
	Bundles     Bundles     `toml:"bundles"`
	Registries  []Registry  `toml:"registries"` // what is to be known about registries of OCI images; default nothing
	Store       Store       `toml:"store"`
	Modules     Modules     `toml:"modules"`
	Listen      Listen      `toml:"listen"`
	Network     Bridge      `toml:"network"`
	Permissions Permissions `toml:"permissions"` // the second key to walls that manifests ask to open; default none
	Log         Log         `toml:"log"`
	Hal         hal.Config  `toml:"hal"` // pins, buses and sensors that modules may be granted; default none
}

// Device says who this device is. Either a connection string (inline or in a file), or hub, id and an X.509 pair.
type Device struct {
	ConnectionString     iothub.Secret `toml:"connection_string"`
	ConnectionStringFile string        `toml:"connection_string_file"`
	Hub                  string        `toml:"hub"`         // host name of the hub, with X.509
	ID                   string        `toml:"id"`          // device id, with X.509
	Certificate          string        `toml:"certificate"` // PEM file, leaf first
	PrivateKey           string        `toml:"private_key"` // PEM file
	Gateway              string        `toml:"gateway"`     // the name modules dial; default: this host's name
}

// Upstream says how the hub is reached.
type Upstream struct {
	MQTTAddress  string `toml:"mqtt_address"`  // host:port; default {hub}:8883
	HTTPSAddress string `toml:"https_address"` // host:port; default {hub}:443
	TrustedCA    string `toml:"trusted_ca"`    // PEM file that replaces the system's roots for the hub
}

// Permissions name, for each wall that can be opened, the modules it may be opened to: name prefixes, "*" for all. The module's manifest
// must ask for it too: whoever operates the fleet does not own the device.
type Permissions struct {
	HostNetwork []string `toml:"host_network"` // the host's network namespace (network: host)
	Trace       []string `toml:"trace"`        // tracing processes of its own sandbox
	IOUring     []string `toml:"io_uring"`     // system calls through a ring, past the filter
}

// Modules holds the limits of a module that asks for none.
type Modules struct {
	Memory Size    `toml:"memory"`  // default 128 MiB
	CPU    float64 `toml:"cpu"`     // cores; default 1.0
	Pids   int64   `toml:"pids"`    // default 128
	IDBase uint32  `toml:"id_base"` // first host uid of the modules' ranges of 65536; default 1048576
	IO     Size    `toml:"io"`      // bytes a second, read and written, on each disk; default 0 = not limited
	Data   Size    `toml:"data"`    // bytes that each durable directory holds of a module whose manifest says none; default 0 = not bounded
	Strict bool    `toml:"strict"`  // a module whose sandbox differs from what it was granted is not started; default false

	Logs     LogPlace `toml:"logs"`      // where modules' output is kept; default memory
	LogTotal Size     `toml:"log_total"` // bytes of it, of all modules together; default 8 MiB in memory, 32 MiB on disk
	LogRate  Size     `toml:"log_rate"`  // bytes a second one module may print for long; default 256 KiB
}

// LogPlace is where modules' output is kept.
type LogPlace string

// The places. Memory is the run_dir, which is lost with the power and never written to flash; disk is the state_dir.
const (
	LogsInMemory LogPlace = "memory"
	LogsOnDisk   LogPlace = "disk"
)

// UnmarshalText reads a place for logs.
func (p *LogPlace) UnmarshalText(text []byte) error {
	switch v := LogPlace(text); v {
	case LogsInMemory, LogsOnDisk:
		*p = v
		return nil
	}
	return fmt.Errorf("%q is not a place for logs; want memory or disk", text)
}

// Listen names the host addresses on which modules under a debugger and downstream devices are served. Empty = none.
type Listen struct {
	MQTT  []string `toml:"mqtt"`
	HTTPS []string `toml:"https"`
}

// Log says what the agent writes and how.
type Log struct {
	Level  slog.Level `toml:"level"`  // debug, info, warn, error; default info
	Format LogFormat  `toml:"format"` // auto, text, json, journal; default auto
}

// withDefaults fills what the file left out. It is the only home of a default.
func (c Config) withDefaults() Config {
	set(&c.StateDir, "/var/lib/sandpiper")
	set(&c.RunDir, "/run/sandpiper")
	if c.Device.Gateway == "" {
		host, err := os.Hostname()
		if err != nil || host == "" {
			host = "localhost"
		}
		c.Device.Gateway = host
	}
	set(&c.Bundles.MaxBytes, 1<<30)
	set(&c.Modules.Memory, 128<<20)
	set(&c.Modules.CPU, 1.0)
	set(&c.Modules.Pids, 128)
	set(&c.Modules.IDBase, 1<<20)
	set(&c.Modules.Logs, LogsInMemory)
	if c.Modules.Logs == LogsOnDisk {
		set(&c.Modules.LogTotal, 32<<20)
	}
	set(&c.Modules.LogTotal, 8<<20)
	set(&c.Modules.LogRate, 256<<10)
	set(&c.Log.Format, LogAuto)
	if c.Store.DailyWrites > 0 {
		set(&c.Store.AtDailyLimit, AtLimitLinger)
	}
	return c
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// identity resolves who the device is: hub "" means standalone.
func (c Config) identity() (device, error) {
	d := c.Device
	text := d.ConnectionString
	if d.ConnectionStringFile != "" {
		raw, err := readSmall(d.ConnectionStringFile, 4096)
		if err != nil {
			return device{}, err
		}
		text = iothub.Secret(strings.TrimSpace(string(raw)))
	}
	if text != "" {
		cs, err := iothub.ParseConnectionString(text)
		if err != nil {
			return device{}, fmt.Errorf("device connection string: %w", err)
		}
		if cs.ID.IsModule() {
			return device{}, fmt.Errorf("device connection string: it names module %q; give the device's own", cs.ID.Module)
		}
		dev := device{hub: cs.Host, id: cs.ID.Device, key: cs.Key}
		if cs.X509 {
			dev.pair, err = d.pair()
		}
		return dev, err
	}
	if d.Hub == "" {
		return device{id: standaloneDevice}, nil
	}
	pair, err := d.pair()
	return device{hub: d.Hub, id: d.ID, pair: pair}, err
}

// device is the resolved identity of this device.
type device struct {
	hub  string // "" = standalone
	id   string
	key  iothub.Key
	pair *tls.Certificate
}

// standaloneDevice names the device in the identities of its modules when it belongs to no hub.
const standaloneDevice = "standalone"

func (d Device) pair() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(d.Certificate, d.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("device certificate: %w", err)
	}
	return &pair, nil
}

// readSmall reads a file that must not be larger than limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s: want a regular file of at most %d bytes", path, limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// problem is one fault of a configuration value: the dotted key and what is wrong with it.
type problem struct {
	key string
	why string
}

// problems lists what is wrong with c beyond its types.
func (c Config) problems() []problem {
	var out []problem
	bad := func(key, format string, args ...any) { out = append(out, problem{key, fmt.Sprintf(format, args...)}) }
	if c.StateDir != "" && !filepath.IsAbs(c.StateDir) {
		bad("state_dir", "%q is not an absolute path", c.StateDir)
	}
	if c.RunDir != "" && !filepath.IsAbs(c.RunDir) {
		bad("run_dir", "%q is not an absolute path", c.RunDir)
	}
	if n := len(c.RunDir) + len("/control.sock"); n > maxSocketPath {
		bad("run_dir", "the path of the control socket in it has %d bytes; a socket's has %d at most", n, maxSocketPath)
	}
	if key, why, wrong := c.halProblem(); wrong {
		bad(key, "%s", why)
	}
	d := c.Device
	if d.ConnectionString != "" && d.ConnectionStringFile != "" {
		bad("device.connection_string_file", "connection_string is given too; keep one of them")
	}
	if byString := d.ConnectionString != "" || d.ConnectionStringFile != ""; byString && (d.Hub != "" || d.ID != "") {
		bad("device.hub", "the connection string names hub and device already; remove hub and id")
	}
	if (d.Hub == "") != (d.ID == "") {
		bad("device.hub", "hub and id go together; give both, or a connection string, or neither for a standalone device")
	}
	if d.Hub != "" && !strings.Contains(d.Hub, ".") {
		bad("device.hub", "%q has no dot; some device SDKs refuse such a hub name", d.Hub)
	}
	if d.Hub != "" && (d.Certificate == "" || d.PrivateKey == "") {
		bad("device.certificate", "a device named by hub and id needs certificate and private_key")
	}
	if (d.Certificate == "") != (d.PrivateKey == "") {
		bad("device.certificate", "certificate and private_key go together")
	}
	c.Bundles.problems(bad)
	registryProblems(c.Registries, bad)
	c.Store.problems(bad)
	c.Network.problems(bad)
	if c.Modules.Memory != 0 && c.Modules.Memory < sandbox.MinMemory {
		bad("modules.memory", "%d bytes is below the floor of 1MiB under which no sandbox starts", c.Modules.Memory)
	}
	if c.Modules.CPU < 0 || c.Modules.CPU > 1024 {
		bad("modules.cpu", "%g is not a number of cores; want 0.01 to 1024", c.Modules.CPU)
	}
	if c.Modules.Pids < 0 {
		bad("modules.pids", "%d is negative", c.Modules.Pids)
	}
	if c.Modules.IDBase != 0 && (c.Modules.IDBase < 65536 || c.Modules.IDBase%65536 != 0) {
		bad("modules.id_base", "%d is not a multiple of 65536 above zero", c.Modules.IDBase)
	}
	if n := c.Modules.LogTotal; n != 0 && n < 256<<10 {
		bad("modules.log_total", "%d bytes is too small; want at least 256KiB", n)
	}
	if n := c.Modules.LogRate; n != 0 && n < 1<<10 {
		bad("modules.log_rate", "%d bytes a second is too small; want at least 1KiB", n)
	}
	return out
}

// ErrConfig is wrapped by every error about the content of the configuration.
var ErrConfig = errors.New("configuration")
