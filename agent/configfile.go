package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// DefaultConfigPath is where [Load] looks when no path is given. That file may be absent.
const DefaultConfigPath = "/etc/sandpiper/config.toml"

// maxConfig bounds the configuration file, in bytes.
const maxConfig = 1 << 20

// Load reads the configuration at path. An empty path means [DefaultConfigPath], which may be absent: then the agent is
// standalone with defaults. Every error names file and line, the key and what would be right.
func Load(path string) (Config, error) {
	asked := path != ""
	if !asked {
		path = DefaultConfigPath
	}
	raw, err := readSmall(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return Config{}.withDefaults(), nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return Parse(path, raw)
}

// Parse reads configuration text; name stands for the file in errors.
func Parse(name string, raw []byte) (Config, error) {
	var c Config
	meta, err := toml.Decode(string(raw), &c)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %s:%s", ErrConfig, name, decodeFault(err))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		key := unknown[0]
		return Config{}, fmt.Errorf("%w: %s:%d: unknown key %q; known here: %s",
			ErrConfig, name, lineOf(raw, key), key.String(), strings.Join(siblings(key), ", "))
	}
	if faults := c.problems(); len(faults) > 0 {
		p := faults[0]
		return Config{}, fmt.Errorf("%w: %s:%d: %s: %s", ErrConfig, name, lineOf(raw, strings.Split(p.key, ".")), p.key, p.why)
	}
	return c.withDefaults(), nil
}

// typeFault is how the decoder words a value of the wrong type; it gives that error no type of its own.
var typeFault = regexp.MustCompile(`line (\d+) \(last key "([^"]*)"\): (.*)`)

// decodeFault renders an error of the TOML decoder as "line: key: what".
func decodeFault(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if m := typeFault.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("%s: %s: %s", m[1], m[2], m[3])
	}
	var fault toml.ParseError
	if errors.As(err, &fault) {
		return fmt.Sprintf("%d: %s", fault.Position.Line, strings.TrimPrefix(text, "toml: "))
	}
	return "1: " + text
}

// lineOf finds the line on which key is written, 1 when it cannot be told (the decoder does not keep positions of keys).
func lineOf(raw []byte, key []string) int {
	if line, ok := halLine(raw, key); ok {
		return line
	}
	table, best := "", 1
	want := strings.Join(key, ".")
	for i, line := range bytes.Split(raw, []byte("\n")) {
		text := strings.TrimSpace(string(line))
		if strings.HasPrefix(text, "[") {
			table = strings.Trim(strings.SplitN(text, "]", 2)[0], "[ ")
			if table == want {
				return i + 1
			}
			continue
		}
		name, _, ok := strings.Cut(text, "=")
		if !ok {
			continue
		}
		full := strings.Trim(strings.TrimSpace(name), `"'`)
		if table != "" {
			full = table + "." + full
		}
		if full == want {
			return i + 1
		}
		if strings.HasPrefix(want, full+".") {
			best = i + 1 // written inline: key = { ... }
		}
	}
	return best
}

// siblings lists the keys known in the table that key stands in.
func siblings(key toml.Key) []string {
	tables := map[string][]string{
		"":                     {"state_dir", "run_dir", "device", "upstream", "bundles", "store", "modules", "listen", "network", "log", "hal", "permissions", "registries"},
		"device":               {"connection_string", "connection_string_file", "hub", "id", "certificate", "private_key", "gateway"},
		"upstream":             {"mqtt_address", "https_address", "trusted_ca"},
		"bundles":              {"trusted_keys", "trusted_ca", "max_bytes", "mirrors", "rate", "metered", "monthly"},
		"bundles.mirrors":      {"prefix", "urls"},
		"bundles.trusted_keys": {"file", "modules"},
		"store":                {"max_bytes", "max_age", "max_messages", "min_free", "daily_writes", "at_daily_limit"},
		"modules":              {"memory", "cpu", "pids", "id_base", "io", "data", "strict", "logs", "log_total", "log_rate"},
		"listen":               {"mqtt", "https"},
		"permissions":          {"host_network", "trace", "io_uring"},
		"registries":           {"name", "mirrors", "keys", "plain_http", "trusted_ca"},
		"hal.spi":              {"name", "controller", "cs", "path", "mode", "hz", "bits", "max_bytes", "commands", "rate", "allow"},
		"hal.serial":           {"name", "usb", "path", "mode", "protocol", "rs485", "gap", "rate", "unit", "allow"},
		"hal.serial.usb":       {"serial", "port"},
		"hal.serial.unit":      {"name", "unit", "read", "write", "rate", "allow"},
		"hal.modbus":           {"name", "tcp", "unit"},
		"hal.modbus.unit":      {"name", "unit", "read", "write", "rate", "allow"},
		"hal.device":           {"name", "path", "allow"},
		"network":              {"range", "publish"},
		"log":                  {"level", "format"},
		"hal":                  {"backend", "hold", "replay", "line", "i2c", "sensor", "pwm", "led", "can", "device", "modbus", "serial", "spi"},
		"hal.line":             {"name", "chip", "path", "line", "offset", "direction", "active_low", "drive", "bias", "edges", "initial", "debounce", "buffer", "safe", "max_rate", "max_on", "allow", "sim"},
		"hal.i2c":              {"name", "adapter", "path", "timeout", "device"},
		"hal.i2c.device":       {"name", "addr", "reg_bytes", "read", "write", "commands", "rate", "allow"},
		"hal.sensor":           {"name", "source", "unit", "scale", "offset", "range", "curve", "invalid", "rate", "allow", "sim"},
		"hal.line.sim":         {"wave", "min", "max", "period", "steps", "csv", "column", "wire", "release", "fifo"},
		"hal.sensor.sim":       {"wave", "min", "max", "period", "steps", "csv", "column", "wire", "release", "fifo"},
		"hal.sensor.source":    {"hwmon", "iio", "thermal", "w1", "power", "i2c", "modbus", "driver", "parent", "attr", "type"},
		"hal.pwm":              {"name", "chip", "channel", "freq", "max_duty", "safe", "max_on", "allow"},
		"hal.led":              {"name", "led", "safe", "allow"},
		"hal.can":              {"interface", "filter"},
		"hal.can.filter":       {"name", "rx", "tx", "rate", "allow"},
		"hal.serial.rs485":     {"rts_on_send"},
	}
	known := tables[strings.Join(key[:len(key)-1], ".")]
	if known == nil {
		known = tables[""]
	}
	sort.Strings(known)
	return known
}

// Size is a number of bytes, written as an integer or as text with a unit: "64MiB", "512KiB", "2GiB".
type Size int64

// UnmarshalTOML reads a size.
func (s *Size) UnmarshalTOML(value any) error {
	switch v := value.(type) {
	case int64:
		if v < 0 {
			return fmt.Errorf("%d is negative", v)
		}
		*s = Size(v)
		return nil
	case string:
		n, err := ParseSize(v)
		*s = Size(n)
		return err
	default:
		return fmt.Errorf(`%v is not a size; want an integer of bytes or text such as "64MiB"`, value)
	}
}

// ParseSize reads a number of bytes with an optional unit KiB, MiB or GiB.
func ParseSize(text string) (int64, error) {
	digits, shift := text, 0
	for unit, bits := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if rest, ok := strings.CutSuffix(text, unit); ok {
			digits, shift = strings.TrimSpace(rest), bits
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf(`%q is not a size; want an integer of bytes or text such as "64MiB"`, text)
	}
	return n << shift, nil
}

// LogFormat is how log lines are written.
type LogFormat string

// The log formats. Auto is the journal when JOURNAL_STREAM says that standard error goes there, else text.
const (
	LogAuto    LogFormat = "auto"
	LogText    LogFormat = "text"
	LogJSON    LogFormat = "json"
	LogJournal LogFormat = "journal"
)

// UnmarshalText reads a log format.
func (f *LogFormat) UnmarshalText(text []byte) error {
	switch v := LogFormat(text); v {
	case LogAuto, LogText, LogJSON, LogJournal:
		*f = v
		return nil
	}
	return fmt.Errorf("%q is not a log format; want auto, text, json or journal", text)
}
