package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func TestAWrongConfigurationNamesFileLineKeyAndRemedy(t *testing.T) {
	t.Parallel()
	for claim, c := range map[string]struct {
		text string
		want []string
	}{
		"an unknown key at the top": {
			"state_dir = \"/a\"\nstat_dir = \"/b\"\n", []string{"c.toml:2:", `unknown key "stat_dir"`, "state_dir"},
		},
		"an unknown key in a table": {
			"\n[device]\nhubb = \"a.b\"\n", []string{"c.toml:3:", `unknown key "device.hubb"`, "connection_string_file"},
		},
		"an unknown table": {
			"[modbus]\n", []string{"c.toml:1:", `unknown key "modbus"`, "upstream"},
		},
		"an unknown key in a list of tables": {
			"[[bundles.trusted_keys]]\nfile = \"a\"\nmodule = [\"x\"]\n", []string{"c.toml:3:", `"bundles.trusted_keys.module"`, "modules"},
		},
		"a wrong type":             {"[modules]\npids = \"many\"\n", []string{"c.toml:2:", "pids"}},
		"a size without sense":     {"[store]\nmax_bytes = \"7 parsecs\"\n", []string{"c.toml:2:", "max_bytes", "64MiB"}},
		"an age without sense":     {"[store]\nmax_age = \"soon\"\n", []string{"c.toml:2:", "max_age", "30d"}},
		"an age of nothing":        {"[store]\nmax_age = \"0s\"\n", []string{"c.toml:2:", "max_age", "30d"}},
		"less than no messages":    {"[store]\nmax_messages = -1\n", []string{"c.toml:2:", "max_messages", "negative"}},
		"a budget of nothing":      {"[store]\ndaily_writes = 1\n", []string{"c.toml:2:", "daily_writes", "1MiB"}},
		"an unknown limit":         {"[store]\ndaily_writes = \"1GiB\"\nat_daily_limit = \"panic\"\n", []string{"c.toml:3:", "at_daily_limit", "linger, relaxed or refuse"}},
		"a limit without a budget": {"[store]\nat_daily_limit = \"refuse\"\n", []string{"c.toml:2:", "at_daily_limit", "daily_writes"}},
		"an unknown log format":    {"[log]\nformat = \"xml\"\n", []string{"c.toml:2:", "format", "auto, text, json or journal"}},
		"an unknown log level":     {"[log]\nlevel = \"loud\"\n", []string{"c.toml:2:", "level"}},
		"broken syntax":            {"state_dir = \n", []string{"c.toml:1:"}},
		"a deep run directory":     {"\nrun_dir = \"/" + strings.Repeat("r", 94) + "\"\n", []string{"c.toml:2:", "run_dir", "108 bytes", "107"}},
		"a relative directory":     {"\nrun_dir = \"run\"\n", []string{"c.toml:2:", "run_dir", "absolute"}},
		"two connection strings":   {"[device]\nconnection_string = \"a\"\nconnection_string_file = \"b\"\n", []string{"c.toml:3:", "keep one"}},
		"a hub without a device":   {"[device]\nhub = \"h.example\"\n", []string{"c.toml:2:", "go together"}},
		"a hub without a dot":      {"[device]\nhub = \"h\"\nid = \"d\"\ncertificate = \"c\"\nprivate_key = \"k\"\n", []string{"c.toml:2:", "no dot"}},
		"memory below the floor":   {"[modules]\nmemory = \"512KiB\"\n", []string{"c.toml:2:", "floor of 1MiB"}},
		"an id base off the grid":  {"[modules]\nid_base = 1000\n", []string{"c.toml:2:", "multiple of 65536"}},
		"a mirror without TLS":     {"[[bundles.mirrors]]\nprefix = \"http://a/\"\n", []string{"c.toml:1:", "bundles.mirrors", "https://"}},
		"a month without a meter":  {"[bundles]\nmonthly = \"50MiB\"\n", []string{"c.toml:2:", "bundles.metered"}},
		"a rate of nothing":        {"[bundles]\nrate = 10\n", []string{"c.toml:2:", "bundles.rate", "1KiB"}},
		"a signer without a file":  {"[[bundles.trusted_keys]]\nmodules = [\"a\"]\n", []string{"c.toml:1:", "entry 1 has no file"}},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("c.toml", []byte(c.text))
			if err == nil {
				t.Fatalf("got no error, want one with %q", c.want)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to contain %q", err, want)
				}
			}
			if strings.ContainsRune(err.Error(), '\n') {
				t.Errorf("got %q, want one line", err)
			}
		})
	}
}

func TestNoConfigurationAtAllIsAStandaloneDevice(t *testing.T) {
	t.Parallel()
	c, err := Parse("c.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := c.identity()
	if err != nil || dev.hub != "" || dev.id != standaloneDevice {
		t.Fatalf("got %+v, %v, want the standalone device", dev, err)
	}
	if c.StateDir != "/var/lib/sandpiper" || c.RunDir != "/run/sandpiper" || c.Modules.Memory != 128<<20 {
		t.Fatalf("got %+v, want the documented defaults", c)
	}
}

func TestAConnectionStringFileNamesHubAndDevice(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "cs")
	text := "HostName=hub.example.net;DeviceId=edge1;SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Parse("c.toml", []byte("[device]\nconnection_string_file = \""+file+"\"\n[log]\nlevel = \"debug\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := c.identity()
	if err != nil || dev.hub != "hub.example.net" || dev.id != "edge1" || len(dev.key) != 32 {
		t.Fatalf("got %+v, %v, want edge1 at hub.example.net with its key", dev, err)
	}
	if c.Log.Level != slog.LevelDebug {
		t.Fatalf("got level %v, want debug", c.Log.Level)
	}
}

func TestTheKnownKeysInErrorsAreTheKeysOfTheStruct(t *testing.T) {
	t.Parallel()
	var walk func(prefix []string, typ reflect.Type)
	walk = func(prefix []string, typ reflect.Type) {
		var want []string
		for _, f := range reflect.VisibleFields(typ) {
			key := f.Tag.Get("toml")
			if key == "" || key == "-" { // of an embedded part what is in it counts
				continue
			}
			want = append(want, key)
			inner := f.Type
			if inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && slices.ContainsFunc(reflect.VisibleFields(inner), func(f reflect.StructField) bool { return f.Tag.Get("toml") != "" }) { // without tags it is written as one word
				walk(append(append([]string(nil), prefix...), key), inner)
			}
		}
		sort.Strings(want)
		got := siblings(append(append(toml.Key(nil), prefix...), "x"))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("table %q: got %q, want %q", strings.Join(prefix, "."), got, want)
		}
	}
	walk(nil, reflect.TypeFor[Config]())
}

func FuzzParseNeverPanicsAndNamesALine(f *testing.F) {
	f.Add([]byte("[device]\nhub = 1\n"))
	f.Add([]byte("[[bundles.trusted_keys]]\nfile = \"a\"\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := Parse("c.toml", raw); err != nil && !strings.Contains(err.Error(), "c.toml:") {
			t.Errorf("got %q, want the file and line in it", err)
		}
	})
}
