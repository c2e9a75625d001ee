package agent

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAPinThatIsWronglyConfiguredIsNamedWithItsLine(t *testing.T) {
	t.Parallel()
	const relay = "[hal]\nbackend = \"sim\"\n[[hal.line]]\nname = \"relay-1\"\nchip = \"c\"\nline = \"GPIO17\"\ndirection = \"out\"\nallow = [\"pump\"]\n"
	for name, c := range map[string]struct{ text, want string }{
		"no safe value":         {relay, "config.toml:3: hal.line.0.safe: missing"},
		"two of one name":       {relay + "safe = 0\n[[hal.line]]\nname = \"relay-1\"\nchip = \"c\"\noffset = 1\ndirection = \"in\"\n", `config.toml:11: hal.line.1.name: "relay-1" is the name of another`},
		"two of one line":       {relay + "safe = 0\n[[hal.line]]\nname = \"x\"\nchip = \"c\"\nline = \"GPIO17\"\ndirection = \"in\"\n", "config.toml:10: hal.line.1: relay-1 and x both claim line GPIO17 of c"},
		"an unknown word":       {relay + "safe = 0\nbias = \"up\"\n", `config.toml:10: hal.line.0.bias: "up"; want as-is, disabled, pull-up, pull-down`},
		"a release of none":     {relay + "safe = 0\nsim = {release = \"float\"}\n", `config.toml:10: hal.line.0.sim: "float"; want input, keep, pull`},
		"a replay of the board": {"[hal]\nreplay = \"x\"\n[[hal.line]]\nname = \"a\"\nchip = \"c\"\noffset = 1\ndirection = \"in\"\n", `hal.replay: a recording is played on a simulated board`},
		"an unknown key":        {relay + "safe = 0\ncolour = 1\n", `unknown key "hal.line.colour"; known here: active_low, allow`},
		"a node in disguise":    {"[[hal.device]]\nname = \"a\"\npath = \"/dev//mem\"\n", "hal.device.0.path: \"/dev//mem\"; want a node below /dev, written plainly"},
		"a raw memory node":     {"[[hal.device]]\nname = \"a\"\npath = \"/dev/mem\"\n", "hal.device.0.path: /dev/mem is never granted"},
		"a line of units twice": {"[[hal.serial]]\npath = \"/dev/ttyS1\"\nmode = \"9600-8E1\"\nprotocol = \"modbus-rtu\"\nunit = [{name=\"m\", unit=1}]\n" +
			"[[hal.serial]]\npath = \"/dev/ttyS1\"\nmode = \"19200-8E1\"\nprotocol = \"modbus-rtu\"\nunit = [{name=\"n\", unit=2}]\n", "hal.serial.1: m and the units here both claim port /dev/ttyS1"},
		"a reserved i2c id": {"[[hal.i2c]]\nadapter = \"i2c@1\"\ndevice = [{name=\"a\", addr=0x78}]\n", "hal.i2c.0.device.0.addr: 0x78; want 0x08 to 0x77"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Parse("config.toml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	if c, err := Parse("config.toml", []byte(relay+"safe = 0\nmax_rate = \"10/s\"\nmax_on = \"30m\"\n")); err != nil {
		t.Error(err)
	} else if r, err := c.Hal.Resources(); err != nil || len(r) != 1 || *r[0].Safe != 0 || r[0].Rate != 10 {
		t.Errorf("got %+v, %v; want one relay, safe 0, 10/s", r, err)
	}
}

func TestTheWorldAroundARealBoardIsNobodysToChange(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hal/sim/door", strings.NewReader(`{"value":1}`))
	r.SetPathValue("name", "door")
	new(Agent).simulate(w, r)
	if w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), "the board is real") {
		t.Errorf("got %d %s, want it refused", w.Code, w.Body)
	}
}
