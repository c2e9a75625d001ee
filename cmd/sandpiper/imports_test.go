package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/sandpiper-edge/sandpiper"

// room is one package as the go command lists it.
type room struct {
	ImportPath string
	Name       string
	Doc        string
	Imports    []string
	GoFiles    []string

	TestImports, XTestImports []string
}

// short is the path below the module, "agent/broker"; "" for the module's root.
func (r room) short() string {
	return strings.TrimPrefix(strings.TrimPrefix(r.ImportPath, modulePath), "/")
}

func (r room) testOnly() bool { return strings.HasSuffix(r.ImportPath, "test") }

// goList asks the go command about the tree. It needs the modules that the tree needs: who has them in another user's cache only, and no
// network, learns that nothing was checked.
func goList(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-tags", "netgo osusergo seccomp runc_nocriu nethttpomithttp2"}, args...)...)
	out, err := cmd.Output()
	if err == nil {
		return out
	}
	if os.Getuid() != 0 && exec.CommandContext(t.Context(), "go", "mod", "download").Run() != nil {
		t.Skip("THE IMPORT RULES ARE NOT CHECKED: this user has no module cache with what the tree needs and cannot fill one; GOMODCACHE names another")
	}
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		err = fmt.Errorf("%w: %s", err, ended.Stderr)
	}
	t.Fatalf("go list: %v", err)
	return nil
}

// rooms lists every package of the module.
func rooms(t *testing.T) []room {
	t.Helper()
	out := goList(t, "-json=ImportPath,Name,Doc,Imports,GoFiles,TestImports,XTestImports", modulePath+"/...")
	var list []room
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var r room
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	if len(list) < 10 {
		t.Fatalf("got %d packages, want the whole tree", len(list))
	}
	return list
}

// rules name, for each room, the rooms of ours that it may import, and why no others.
var rules = []struct {
	rooms []string
	may   []string // prefixes ending in / match a subtree
	why   string
}{
	{
		[]string{"agent/iothub", "agent/message", "agent/twin", "agent/route", "agent/deployment", "agent/mqtt"},
		[]string{"agent/iothub", "agent/message", "agent/route", "agent/twin"},
		"nouns import only the standard library and each other, so that they can be tested and reused without a machine",
	},
	{
		[]string{"store", "hal"},
		nil,
		"leaves import nothing of ours",
	},
	{
		[]string{"cmd/console"},
		nil,
		"how a command ends and prints says nothing of what it does",
	},
	{
		[]string{"hal/linux", "hal/haltest"},
		[]string{"hal"},
		"a backend of pins and its contract suite know the contract and nothing above it",
	},
	{
		[]string{"hal/linux/conn"},
		nil,
		"a module's author links it into a program of their own: nothing of the agent comes along",
	},
	{
		[]string{"sandbox"},
		nil,
		"the sandbox contract stands alone",
	},
	{
		[]string{"sandbox/container", "sandbox/container/entry", "sandbox/effective", "sandbox/quota", "sandbox/loop", "sandbox/network", "sandbox/image", "sandbox/image/bundle", "sandbox/image/oci"},
		[]string{"sandbox", "sandbox/container/entry", "sandbox/loop", "sandbox/image/bundle", "sandbox/image/oci"},
		"the sandbox's rooms know the contract and nothing above it",
	},
	{
		[]string{"agent/identity", "agent/workload", "agent/broker", "agent/upstream", "agent/supervisor", "agent/ota", "agent/control", "agent/checkup"},
		[]string{"agent/iothub", "agent/message", "agent/twin", "agent/route", "agent/deployment", "agent/mqtt", "store", "sandbox", "sandbox/effective", "sandbox/image", "sandbox/image/bundle", "sandbox/image/oci", "hal"},
		"an engine never imports another engine: they meet in agent by a func, a channel or a small interface",
	},
	{
		[]string{"agent/hub", "agent/hub/state"},
		[]string{"agent/iothub", "agent/message", "agent/twin", "agent/deployment", "agent/route", "agent/mqtt", "agent/hub/state"},
		"the hub is a product of its own that shares only the language with the agent",
	},
	{
		[]string{"cmd/sandpiper-bundle"},
		[]string{"sandbox/image/bundle", "sandbox/image/oci", "cmd/console"},
		"the host tool writes the format and never runs an agent",
	},
	{
		[]string{"cmd/sandpiper-hub"},
		[]string{"agent/hub", "agent/hub/service", "agent/hub/state", "agent/iothub", "cmd/console"},
		"the hub's command line is the hub and its language",
	},
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range rooms(t) {
		seen[r.short()] = true
		for _, rule := range rules {
			if !slices.Contains(rule.rooms, r.short()) {
				continue
			}
			for _, imported := range r.Imports {
				below, ours := strings.CutPrefix(imported, modulePath+"/")
				if !ours || slices.Contains(rule.may, below) {
					continue
				}
				t.Errorf("%s imports %s: %s", r.short(), below, rule.why)
			}
		}
	}
	for _, must := range []string{"agent/iothub", "agent/broker", "agent/hub", "sandbox/container", "store"} {
		if !seen[must] {
			t.Errorf("no package %s: the rule about it guards nothing", must)
		}
	}
}

func TestTheDeviceBinaryHoldsNoHub(t *testing.T) {
	t.Parallel()
	out := goList(t, "-deps", modulePath+"/cmd/sandpiper")
	deps := strings.Fields(string(out))
	for path, why := range map[string]string{
		modulePath + "/agent/hub":                  "the hub never runs on a device",
		"github.com/nats-io/nats-server/v2/server": "the hub's state engine costs 10 MB",
		"net/rpc":                        "it looks methods up by name",
		"periph.io/x/host/v3":            "it opens every chip at the start and costs 0.5 MB",
		"periph.io/x/host/v3/sysfs":      "it is what our own code is compared with",
		"periph.io/x/conn/v3/i2c/i2creg": "a global registry of buses",
		modulePath + "/hal/linux/conn":   "it is for modules",
	} {
		if slices.Contains(deps, path) {
			t.Errorf("the device binary holds %s: %s", path, why)
		}
	}
	if !slices.Contains(deps, modulePath+"/agent") {
		t.Error("the list of dependencies does not even hold the agent: this test guards nothing")
	}
}

// homes gives each foreign library its room. A library that is a codec, as encoding/json is, may have several.
var homes = map[string][]string{
	"github.com/BurntSushi/toml":             {"agent", "cmd/sandpiper-bundle"},
	"github.com/coreos/go-systemd/v22":       {"agent", "sandbox/container"},
	"github.com/eclipse/paho.mqtt.golang":    {"agent/upstream"},
	"github.com/cyphar/filepath-securejoin":  {"sandbox/container"},
	"github.com/erofs/go-erofs":              {"sandbox/image/bundle", "sandbox/image/oci"},
	"github.com/fxamacker/cbor/v2":           {"agent", "agent/message", "agent/workload", "store", "sandbox/image/bundle"},
	"github.com/gorilla/websocket":           {"agent/mqtt"},
	"github.com/klauspost/compress":          {"sandbox/image/bundle", "sandbox/image/oci"},
	"github.com/moby/sys":                    {"sandbox/container"},
	"github.com/mochi-mqtt/server/v2":        {"agent/mqtt/mqtttest"},
	"github.com/nats-io/nats-server/v2":      {"agent/hub/state"},
	"github.com/nats-io/nats.go":             {"agent/hub/state"},
	"github.com/opencontainers/cgroups":      {"sandbox/container"},
	"github.com/opencontainers/runc":         {"sandbox/container"},
	"github.com/opencontainers/runtime-spec": {"sandbox/container"},
	"github.com/seccomp/libseccomp-golang":   {"sandbox/container"},
	"github.com/sirupsen/logrus":             {"sandbox/container"},
	"github.com/spf13/cobra":                 {"cmd/sandpiper", "cmd/sandpiper-bundle", "cmd/sandpiper-hub", "cmd/console"},
	"github.com/vishvananda/netlink":         {"agent/upstream", "sandbox/container"},
	"go.etcd.io/bbolt":                       {"store"},
	"golang.org/x/sync":                      {"*"},
	"golang.org/x/sys":                       {"*"},
	"golang.org/x/term":                      {"cmd/console"},
	"periph.io/x/conn/v3":                    {"hal/linux/conn"},
}

// oracles are the foreign libraries that only tests use: what ours is compared with, or what looks at it from outside. Each has its room too.
var oracles = map[string][]string{
	"github.com/coder/websocket":   {"agent/broker", "agent/mqtt"},
	"github.com/veraison/go-cose":  {"sandbox/image/bundle"},
	"github.com/vishvananda/netns": {"sandbox/network"},
	"periph.io/x/devices/v3":       {"hal/linux", "hal/linux/conn"},
	"periph.io/x/host/v3":          {"hal/linux"},
}

// libraryOf is which library of a table an import is of.
func libraryOf(table map[string][]string, imported string) (library string, known bool) {
	for library := range table {
		if imported == library || strings.HasPrefix(imported, library+"/") {
			return library, true
		}
	}
	return "", false
}

func foreign(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return strings.Contains(first, ".") && !strings.HasPrefix(imported, modulePath)
}

func TestForeignLibrariesOfTestsStayInTheirRooms(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, r := range rooms(t) {
		for _, imported := range slices.Concat(r.TestImports, r.XTestImports) {
			if _, of := libraryOf(homes, imported); of || !foreign(imported) {
				continue
			}
			library, known := libraryOf(oracles, imported)
			if !known || !slices.Contains(oracles[library], r.short()) {
				t.Errorf("the tests of %s import %s: a dependency of tests is a decision too (DECISIONS.md) and a line in this test", r.short(), imported)
			}
			used[library] = true
		}
	}
	for library := range oracles {
		if !used[library] {
			t.Errorf("no test imports %s: remove its line", library)
		}
	}
}

func TestOneForeignLibraryOneRoom(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, r := range rooms(t) {
		for _, imported := range r.Imports {
			if !foreign(imported) {
				continue
			}
			home, known := libraryOf(homes, imported)
			if !known {
				t.Errorf("%s imports %s, which has no home: a dependency is a decision (DECISIONS.md) and a line in this test", r.short(), imported)
				continue
			}
			used[home] = true
			if where := homes[home]; where[0] != "*" && !slices.Contains(where, r.short()) && !r.testOnly() {
				t.Errorf("%s imports %s, whose room is %s", r.short(), imported, strings.Join(where, " and "))
			}
		}
	}
	for library := range homes {
		if !used[library] {
			t.Errorf("%s has a home but is not imported: remove its line", library)
		}
	}
}

func TestPackageDocsSayWhatTheRoomIs(t *testing.T) {
	t.Parallel()
	for _, r := range rooms(t) {
		if r.Name == "main" {
			if !strings.HasPrefix(r.Doc, "Command ") {
				t.Errorf("%s: got doc %q, want one that begins with Command", r.short(), r.Doc)
			}
			continue
		}
		if len(r.GoFiles) > 0 && !strings.HasPrefix(r.Doc, "Package "+r.Name+" ") {
			t.Errorf("%s: got doc %q, want one that begins with \"Package %s \"", r.short(), r.Doc, r.Name)
		}
	}
}

// The map names every room of the product, and none that is gone.
func TestTheMapNamesEveryRoom(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "## Rooms\n\n```\n")
	list, _, ok := strings.Cut(after, "```")
	if !ok {
		t.Fatal("ARCHITECTURE.md has no list of rooms")
	}
	there := map[string]bool{}
	for _, r := range rooms(t) {
		if there[r.short()] = true; r.short() != "" && !r.testOnly() && !strings.HasPrefix(r.short(), "scripts/") && !regexp.MustCompile(`(^|[\s(])`+r.short()+`[\s)]`).MatchString(list) {
			t.Errorf("the list of rooms does not name %s", r.short())
		}
	}
	for line := range strings.Lines(list) {
		if room := strings.Fields(line)[0]; !there[room] {
			t.Errorf("the list names %s, which is not there", room)
		}
	}
}
