package conn

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"periph.io/x/conn/v3/gpio"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/conn/v3/spi"
	"periph.io/x/devices/v3/bmxx80"
)

// fake answers as the agent does, over a socket: one chip of registers, a loop of SPI, a line.
type fake struct {
	mu    sync.Mutex
	regs  [256]byte
	line  float64
	edges chan string
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	refuse := func(code int, word string) {
		w.WriteHeader(code)
		answer(map[string]any{"error": Error{Code: word, Name: "air"}})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/hal":
		answer([]Granted{{Name: "air", Kind: "i2c"}, {Name: "radio", Kind: "spi"}, {Name: "door", Kind: "line"}, {Name: "dead", Kind: "i2c"}})
	case "POST /v1/hal/dead/transfer":
		refuse(http.StatusBadGateway, "nack")
	case "POST /v1/hal/air/transfer", "POST /v1/hal/radio/transfer":
		var in transfer
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			refuse(http.StatusBadRequest, "range")
			return
		}
		var out result
		for _, o := range in.Ops {
			raw, _ := hex.DecodeString(o.W)
			got := make([]byte, o.R)
			if r.URL.Path == "/v1/hal/radio/transfer" {
				copy(got, raw)
			} else {
				for i := 0; len(raw)%2 == 0 && i < len(raw); i += 2 {
					f.regs[raw[i]] = raw[i+1]
				}
				copy(got, f.regs[raw[0]:])
			}
			out.Ops = append(out.Ops, struct {
				R string `json:"r"`
			}{hex.EncodeToString(got)})
		}
		answer(out)
	case "GET /v1/hal/door":
		answer(value{f.line})
	case "PUT /v1/hal/door":
		var v value
		_ = json.NewDecoder(r.Body).Decode(&v)
		f.line = v.Value
		w.WriteHeader(http.StatusNoContent)
	case "GET /v1/hal/door/events":
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		f.mu.Unlock()
		defer f.mu.Lock()
		for {
			select {
			case e := <-f.edges:
				fmt.Fprintf(w, "{\"edge\":%q}\n", e)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	default:
		refuse(http.StatusNotFound, "unknown")
	}
}

func dial(t *testing.T) (*Board, *fake) {
	t.Helper()
	f := &fake{edges: make(chan string, 8)}
	f.regs[0xd0] = 0x58
	f.regs[0x89] = 0x6b                  // some calibration: T1
	dir, err := os.MkdirTemp("", "conn") //nolint:usetesting // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: f}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	b, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close(); srv.Close(); <-done })
	return b, f
}

func TestUnmodifiedDriverRunsOverTheSocket(t *testing.T) {
	t.Parallel()
	b, _ := dial(t)
	bus, err := b.I2C("air")
	if err != nil {
		t.Fatal(err)
	}
	d, err := bmxx80.NewI2C(bus, 0x76, &bmxx80.DefaultOpts)
	if err != nil {
		t.Fatal(err)
	}
	var e physic.Env
	if err := d.Sense(&e); err != nil || e.Temperature == 0 {
		t.Errorf("got %v, %v, want a temperature", e, err)
	}
	if err := bus.Tx(0x77, []byte{0xd0}, make([]byte, 1)); err == nil {
		t.Error("a second address on a bus of one chip passed")
	}
}

func TestRefusalsKeepTheirCode(t *testing.T) {
	t.Parallel()
	b, _ := dial(t)
	if _, err := b.I2C("nothing"); !IsCode(err, "unknown") {
		t.Errorf("not granted: got %v, want unknown", err)
	}
	bus, err := b.I2C("dead")
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Tx(0x40, []byte{0}, nil); !IsCode(err, "nack") {
		t.Errorf("nobody there: got %v, want nack", err)
	}
	if err := bus.SetSpeed(physic.MegaHertz); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("speed: got %v", err)
	}
	if _, err := Dial(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a socket that is not there was dialled")
	}
}

func TestSPIPacketsKeepTheChipSelected(t *testing.T) {
	t.Parallel()
	b, _ := dial(t)
	p, err := b.SPI("radio")
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Connect(physic.MegaHertz, spi.Mode0, 8)
	if err != nil {
		t.Fatal(err)
	}
	r := make([]byte, 2)
	if err := c.Tx([]byte{1, 2}, r); err != nil || r[0] != 1 || r[1] != 2 {
		t.Errorf("got %v, %v, want what was sent", r, err)
	}
	for name, list := range map[string][]spi.Packet{
		"a gap between packets": {{W: []byte{1}}, {W: []byte{2}}},
		"selected at the end":   {{W: []byte{1}, KeepCS: true}},
		"words of 9 bits":       {{W: []byte{1}, BitsPerWord: 9}},
		"two lengths":           {{W: []byte{1}, R: make([]byte, 2)}},
	} {
		if c.TxPackets(list) == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func TestPinKeepsItsDirectionAndFollowsEdges(t *testing.T) {
	t.Parallel()
	b, f := dial(t)
	p, err := b.Pin("door")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Out(gpio.High); err != nil || p.Read() != gpio.High {
		t.Errorf("got %v, %v, want high", p.Read(), err)
	}
	if err := p.In(gpio.PullUp, gpio.BothEdges); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a pull: got %v, want a refusal", err)
	}
	if err := p.In(gpio.PullNoChange, gpio.RisingEdge); err != nil {
		t.Fatal(err)
	}
	f.edges <- "falling"
	f.edges <- "rising"
	if !p.WaitForEdge(10 * time.Second) {
		t.Error("no edge")
	}
	if p.WaitForEdge(0) {
		t.Error("a falling edge was reported as rising")
	}
	if err := p.Halt(); err != nil || p.WaitForEdge(-1) {
		t.Errorf("after Halt: %v, want no edge", err)
	}
	if p.PWM(gpio.DutyHalf, physic.KiloHertz) == nil {
		t.Error("PWM on a line")
	}
}
