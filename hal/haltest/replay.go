package haltest

import (
	"io"
	"testing"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Replay is a board that gives what a recording of `sandpiper hal record` has, each request exactly in its turn. The test fails at the
// first byte that differs, and at its end if something that was recorded was not asked for.
func Replay(t testing.TB, recording io.Reader) *hal.Sim {
	t.Helper()
	rec := read(t, recording)
	sim := hal.NewSim()
	sim.Play(rec, func(err error) { t.Errorf("replay: %v", err) })
	t.Cleanup(func() {
		for name, n := range sim.Rest() {
			if !t.Failed() {
				t.Errorf("replay: the recording has %d more calls of %s", n, name)
			}
		}
	})
	return sim
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
