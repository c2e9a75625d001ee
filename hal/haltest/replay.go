package haltest

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"sync"
	"testing"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Replay is a board that gives what a recording of `sandpiper hal record` has, each request exactly in its turn. The test fails at the
// first byte that differs, and at its end if something that was recorded was not asked for.
func Replay(t testing.TB, recording io.Reader) *hal.Sim {
	t.Helper()
	rec := read(t, recording)
	p := &player{calls: map[string][]hal.Record{}, at: map[string]int{}}
	for _, r := range rec.Records {
		if r.Op != "edge" && r.Op != "frame" {
			p.calls[r.Name] = append(p.calls[r.Name], r)
		}
	}
	t.Cleanup(func() {
		for name, calls := range p.calls {
			if n := len(calls) - p.at[name]; n > 0 && !t.Failed() {
				t.Errorf("replay: the recording has %d more operations of %s", n, name)
			}
		}
	})
	sim := hal.NewSim()
	sim.Play(rec, func(name string, want []hal.Record) ([]hal.Record, error) {
		found, err := p.next(name, want)
		if err != nil {
			t.Errorf("replay: %v", err)
		}
		return found, err
	})
	return sim
}

// player gives a recording back, one operation after the other.
type player struct {
	mu    sync.Mutex
	calls map[string][]hal.Record
	at    map[string]int
}

func (p *player) next(name string, want []hal.Record) ([]hal.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := p.calls[name][p.at[name]:]
	for i := range want {
		if i == len(rest) {
			return nil, fmt.Errorf("%s: the recording ends after %d operations, and then came %s", name, len(p.calls[name]), request(&want[i]))
		}
		nth := p.at[name] + i + 1
		if byteAt := differs(rest[i].W, want[i].W); rest[i].Op == want[i].Op && byteAt >= 0 {
			return nil, fmt.Errorf("%s: operation %d of the recording: written byte %d differs: got %x, recorded %x", name, nth, byteAt, []byte(want[i].W), []byte(rest[i].W))
		}
		if !rest[i].Asks(&want[i]) {
			return nil, fmt.Errorf("%s: operation %d of the recording: got %s, recorded %s", name, nth, request(&want[i]), request(&rest[i]))
		}
	}
	p.at[name] += len(want)
	return rest[:len(want)], nil
}

// request says what was asked.
func request(r *hal.Record) string {
	text := "a transfer that writes " + hex.EncodeToString(r.W) + " and reads " + strconv.Itoa(r.N)
	switch {
	case r.Op == "read":
		return "a read"
	case r.Op == "write":
		return fmt.Sprintf("a write of %g", r.V)
	case r.Fn != "":
		text = fmt.Sprintf("%s of %d from %d", r.Fn, r.N, r.Addr)
	}
	if r.More {
		text += ", with more after it"
	}
	return text
}

// differs is the first byte in which a and b differ; -1 = they are equal.
func differs(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) == len(b) {
		return -1
	}
	return min(len(a), len(b))
}

// Playback is what a recording has of one I2C chip, at an address, for tests of periph.io's drivers. A failed transfer cannot be played so.
func Playback(t testing.TB, recording io.Reader, name string, addr uint16) *i2ctest.Playback {
	t.Helper()
	p := &i2ctest.Playback{DontPanic: true}
	for i, r := range read(t, recording).Records {
		switch {
		case r.Name != name || r.Op != "transfer":
		case r.Err != "":
			t.Fatalf("record %d of %s failed with %s: use Replay", i+1, name, r.Err)
		default:
			p.Ops = append(p.Ops, i2ctest.IO{Addr: addr, W: r.W, R: r.R})
		}
	}
	return p
}

func read(t testing.TB, recording io.Reader) hal.Recording {
	t.Helper()
	rec, err := hal.ReadRecording(recording)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}
