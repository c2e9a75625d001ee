package agent

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// blocks are the fenced examples of a page in a language.
func blocks(t *testing.T, page, language string) []string {
	t.Helper()
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(string(raw), -1) {
		list = append(list, m[1])
	}
	if len(list) == 0 {
		t.Fatalf("%s has no example in %s: this test guards nothing", page, language)
	}
	return list
}

func TestTheOwnersExamplesAreConfigurationsThatTheAgentTakes(t *testing.T) {
	t.Parallel()
	for _, text := range blocks(t, "../hal/OWNER.md", "toml") {
		c, err := Parse("config.toml", []byte(text))
		if err != nil {
			t.Errorf("%v in\n%s", err, text)
			continue
		}
		list, err := c.Hal.Resources()
		if err != nil || len(list) == 0 {
			t.Errorf("got %d resources, %v from\n%s", len(list), err, text)
		}
		runExample(t, list)
	}
}

// runExample does with each resource of an example what it is there for, on a simulated board.
func runExample(t *testing.T, list []hal.Resource) {
	t.Helper()
	sim := hal.NewSim()
	s, err := hal.New(hal.ServerConfig{Resources: list, Backend: sim})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for i := range list {
		r := &list[i]
		var err error
		switch {
		case r.Kind == hal.KindLine && r.Line.Direction == hal.Out:
			if _, err = s.Write(ctx, hal.Operator, r.Name, 1, time.Minute, 0); err == nil && !slices.Equal(sim.Trace(r.Name), []float64{0, 1}) {
				t.Errorf("%s: got trace %v, want it safe and then on", r.Name, sim.Trace(r.Name))
			}
		case r.Kind == hal.KindLine:
			var w *hal.Watcher
			if w, err = s.Watch(ctx, hal.Operator, r.Name, 0); err == nil {
				sim.Set(r.Name, 1)
				var got [1]hal.Event
				if n, err := w.Next(ctx, got[:]); err != nil || n != 1 || got[0].Edge != hal.Rising {
					t.Errorf("%s: got %+v, %v, want its edge", r.Name, got, err)
				}
			}
		case r.Kind == hal.KindSensor:
			_, err = s.Read(ctx, hal.Operator, r.Name, hal.ClassRead, 0)
		case r.Kind == hal.KindModbus:
			_, err = s.Transfer(ctx, hal.Operator, r.Name, []hal.Op{{Fn: hal.ReadHolding, Addr: uint16(r.Modbus.Read[0].Range.First), N: 1}}, 0)
		case r.Kind == hal.KindI2C:
			_, err = s.Transfer(ctx, hal.Operator, r.Name, []hal.Op{{Write: []byte{byte(r.I2C.Read[0].First)}, Read: 1}}, 0)
		default:
			t.Errorf("%s: an example of kind %s is not run", r.Name, r.Kind)
		}
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
}

func TestTheOwnersExamplesAreThoseThatWerePromised(t *testing.T) {
	t.Parallel()
	kinds := map[hal.Kind]bool{}
	drivers, pulls := "", ""
	for _, text := range blocks(t, "../hal/OWNER.md", "toml") {
		c, err := Parse("config.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		list, err := c.Hal.Resources()
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			kinds[list[i].Kind] = true
			if p := list[i].Sensor; p != nil {
				drivers += p.Source.Driver + " "
			}
			if p := list[i].Line; p != nil {
				pulls += p.Bias + " "
			}
		}
	}
	for what, have := range map[string]bool{
		"a relay or a button": kinds[hal.KindLine], "a button's pull": strings.Contains(pulls, "pull-up"), "a BME280": strings.Contains(drivers, "bme280"), "a Modbus meter": kinds[hal.KindModbus],
	} {
		if !have {
			t.Errorf("hal/OWNER.md has no example of %s any more", what)
		}
	}
	raw, err := os.ReadFile("../hal/OWNER.md")
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile("`\"hal\": (\\[.*?\\])`").FindAllSubmatch(raw, -1)
	if len(asked) == 0 {
		t.Error("hal/OWNER.md does not say any more how a deployment asks")
	}
	for _, m := range asked {
		if grants, err := hal.ParseGrants(m[1]); err != nil || len(grants) == 0 {
			t.Errorf("%s: got %v, %v", m[1], grants, err)
		}
	}
}

func TestTheExampleOfAModuleWithoutAProgramIsOneThatTheAgentTakes(t *testing.T) {
	t.Parallel()
	for _, text := range blocks(t, "../hal/MODULES.md", "json") {
		doc := `{"schemaVersion":"1.1","runtime":{"type":"docker","settings":{}},"systemModules":{"edgeAgent":{"type":"docker","settings":{"image":"x"}},
			"edgeHub":{"type":"docker","status":"running","restartPolicy":"always","settings":{"image":"x"}}},"modules":{"plant":` + text + `}}`
		a, err := deployment.ParseAgent(json.RawMessage(doc))
		if err != nil || len(a.Modules) != 1 {
			t.Fatalf("got %v, %v", a.Modules, err)
		}
		m := a.Modules[0]
		grants, err := hal.ParseGrants(m.Settings.Hal)
		if err != nil {
			t.Fatal(err)
		}
		list, err := parsePublish(m.Settings.Publish, grants)
		if err != nil || len(list) != 2 || !m.Settings.Outputs || !m.Settings.Methods {
			t.Errorf("got %+v, %v, %+v", list, err, m.Settings)
		}
	}
}

func TestWhatIsPublishedIsCheckedBeforeAnythingStops(t *testing.T) {
	t.Parallel()
	grants := []hal.Grant{{Name: "level", Read: true}, {Name: "pump", Write: true}}
	for name, c := range map[string]struct{ text, want string }{
		"both":              {`[{"read":["level"],"watch":"level","every":"1s","output":"o"}]`, "one of read and watch"},
		"nothing":           {`[{"output":"o"}]`, "one of read and watch"},
		"no output":         {`[{"read":["level"],"every":"1s"}]`, "output is missing"},
		"too fast":          {`[{"read":["level"],"every":"1ms","output":"o"}]`, "at least 10ms"},
		"what is not asked": {`[{"read":["door"],"every":"1s","output":"o"}]`, `"door" is not in the list`},
		"write only":        {`[{"read":["pump"],"every":"1s","output":"o"}]`, `"pump" is not in the list`},
		"a word of no use":  {`[{"read":["level"],"evry":"1s","output":"o"}]`, "evry"},
		"another form":      {`[{"read":["level"],"every":"1s","output":"o","encoding":"cbor"}]`, "want json, senml+json, senml+cbor"},
		"a huge batch":      {`[{"read":["level"],"every":"1s","batch":100000,"output":"o"}]`, "batch"},
	} {
		if _, err := parsePublish(json.RawMessage(c.text), grants); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestADeadmanIsForAProgramThatRenewsIt(t *testing.T) {
	t.Parallel()
	grants := []hal.Grant{{Name: "level", Read: true}, {Name: "pump", Write: true, Deadman: time.Second}}
	for kind, want := range map[deployment.Type]string{deployment.Hal: "pump", deployment.Sandbox: ""} {
		if got := unrenewed(deployment.Module{Type: kind}, grants); got != want {
			t.Errorf("%v: got %q, want %q", kind, got, want)
		}
	}
}

func TestThePagesHaveEachKeyOfTheOwnerAndEachOptionOfADeployment(t *testing.T) {
	t.Parallel()
	read := func(page string) string {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	_, owner, found := strings.Cut(read("../hal/OWNER.md"), "## Every key")
	if !found {
		t.Fatal("OWNER.md has no table of keys")
	}
	for _, table := range []string{"", "line", "line.sim", "i2c", "i2c.device", "spi", "serial", "serial.usb", "serial.unit", "serial.rs485", "modbus", "modbus.unit", "can", "can.filter",
		"sensor", "sensor.source", "sensor.sim", "pwm", "led", "device"} {
		key := append(strings.Split(strings.TrimSuffix("hal."+table, "."), "."), "")
		for _, word := range siblings(key) {
			if !strings.Contains(owner, "`"+word+"`") && !strings.Contains(owner, "[[hal."+word+"]]") {
				t.Errorf("%s: OWNER.md does not have the key %s", strings.Join(key, "."), word)
			}
		}
	}
	_, asked, _ := strings.Cut(read("../hal/MODULES.md"), "## What to ask for")
	asked, _, _ = strings.Cut(asked, "\n## ")
	options := regexp.MustCompile("(?m)^\\| `([a-z]+)(=[^`]*)?` \\|").FindAllStringSubmatch(asked, -1)
	if len(options) != 10 {
		t.Errorf("MODULES.md has %d options of a grant, want the 10 that there are", len(options))
	}
	for _, o := range options {
		if _, err := hal.ParseGrants(json.RawMessage(`["x:rw?` + o[1] + o[2] + `"]`)); err != nil {
			t.Errorf("%s%s of MODULES.md: %v", o[1], o[2], err)
		}
	}
}
