package linux

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestBoardLinesAreFoundByNameAndNeverGuessed(t *testing.T) {
	newSimChip(t, "names", "DOOR", "TWIN", "TWIN", "")
	c, err := (&host{}).findChip("names", "")
	if err != nil {
		t.Fatal(err)
	}
	if l, err := findLine(c, "DOOR", 0); err != nil || l.offset != 0 {
		t.Errorf("DOOR: got %+v, %v, want offset 0", l, err)
	}
	if _, err := findLine(c, "TWIN", 0); !errors.Is(err, ErrAmbiguous) || !strings.Contains(err.Error(), "offset 1, offset 2") {
		t.Errorf("TWIN: got %v, want both offsets", err)
	}
	if _, err := findLine(c, "", 4); !errors.Is(err, unix.ERANGE) {
		t.Errorf("offset 4 of 4: got %v", err)
	}
	if _, err := findLine(c, "ALARM", 0); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "DOOR") {
		t.Errorf("got %v, want the names that there are", err)
	}
	if found, err := (&host{}).findChip("", c.parent); err != nil || found.label != "names" {
		t.Errorf("by device path %q: got %v, %v", c.parent, found, err)
	}
	if _, err := (&host{}).findChip("pinctrl-nowhere", ""); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "names") {
		t.Errorf("got %v, want the chips that there are", err)
	}
}

func TestBoardOutputKeepsItsLevelWhileItIsRead(t *testing.T) {
	s := newSimChip(t, "outputs", "", "")
	r := s.request(t, 0, lineConfig{consumer: "sp:pump:relay-1", out: true, value: true})
	for range 3 {
		if on, err := r.get(); !on || err != nil || !s.level(t, 0) {
			t.Fatalf("got %v, %v, the pin %v, want high", on, err, s.level(t, 0))
		}
	}
	if err := r.Set(t.Context(), false); err != nil || s.level(t, 0) {
		t.Errorf("set low: got %v, the pin %v", err, s.level(t, 0))
	}
	inv := s.request(t, 1, lineConfig{out: true, value: true, activeLow: true})
	if s.level(t, 1) {
		t.Error("active low and on: the pin is high, want low")
	}
	if on, err := inv.get(); !on || err != nil {
		t.Errorf("active low: got %v, %v, want on", on, err)
	}
	if _, err := s.tryRequest(0, lineConfig{}); !errors.Is(err, CodeBusy) || !strings.Contains(err.Error(), `"sp:pump:relay-1"`) {
		t.Errorf("second request: got %v, want busy by sp:pump:relay-1", err)
	}
}

func TestBoardKeepTakesTheLevelThatThePinHas(t *testing.T) {
	s := newSimChip(t, "keep", "", "")
	for _, activeLow := range []bool{false, true} {
		for _, up := range []bool{true, false} {
			s.pull(t, 0, up)
			r := s.request(t, 0, lineConfig{out: true, keep: true, activeLow: activeLow})
			if s.level(t, 0) != up {
				t.Errorf("active low %v: the pin went to %v, want %v kept", activeLow, s.level(t, 0), up)
			}
			if on, err := r.get(); err != nil || on != (up != activeLow) {
				t.Errorf("active low %v, pin %v: got %v, %v", activeLow, up, on, err)
			}
			r.Close()
		}
	}
}

func TestBoardEdgesComeInOrderWithTimeAndSequence(t *testing.T) {
	s := newSimChip(t, "edges", "DOOR")
	r := s.request(t, 0, lineConfig{edges: flagsEdges, fifo: 64})
	before := monotonic()
	const n = 20
	reader, err := r.Edges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []hal.Event
	for i := range n { // one at a time: faster ones merge while the interrupt's thread runs
		s.pull(t, 0, i%2 == 0)
		var buf [8]hal.Event
		k, err := reader.Read(ctx, buf[:])
		if err != nil {
			t.Fatalf("after %d edges: %v", len(got), err)
		}
		got = append(got, buf[:k]...)
	}
	last := before
	for i, e := range got {
		if e.Seq != uint64(i+1) || e.Mono < last || (e.Edge == hal.Rising) != (i%2 == 0) || time.Since(e.Time) > time.Minute || time.Since(e.Time) < 0 {
			t.Errorf("edge %d: got %+v after %d", i, e, last)
		}
		last = e.Mono
	}
}

func TestBoardFullFIFOShowsAsAGapInTheSequence(t *testing.T) {
	s := newSimChip(t, "fifo", "")
	r := s.request(t, 0, lineConfig{edges: flagsEdges, fifo: 16})
	for i := range 100 {
		s.pull(t, 0, i%2 == 0)
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // the interrupt's thread shows nothing to wait for
	}
	reader, err := r.Edges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var buf [64]hal.Event
	k, err := reader.Read(t.Context(), buf[:])
	if err != nil || k > 16 || buf[0].Lost == 0 {
		t.Errorf("got %d edges, %d lost before, %v: want at most 16, the oldest lost", k, buf[0].Lost, err)
	}
}

func TestBoardUnpluggedChipSaysSo(t *testing.T) {
	s := newSimChip(t, "unplug", "")
	r := s.request(t, 0, lineConfig{edges: flagsEdges})
	reader, err := r.Edges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		var buf [8]hal.Event
		_, err := reader.Read(t.Context(), buf[:])
		got <- err
	}()
	u, err := openUevents()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	put(t, s.config+"/live", "0")
	if err := u.file.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		e, err := u.read()
		if err != nil {
			t.Fatalf("no uevent of the chip: %v", err)
		}
		if e.action == "remove" && e.subsystem == "gpio" {
			break
		}
	}
	if _, err := r.get(); !errors.Is(err, unix.ENODEV) {
		t.Errorf("get: got %v, want ENODEV", err)
	}
	// Linux 6.12 wakes a waiting reader; 6.1 does not, so whoever hears the uevent closes the line.
	r.Close()
	if err := <-got; !errors.Is(err, unix.ENODEV) && !errors.Is(err, os.ErrClosed) {
		t.Errorf("reader: got %v, want ENODEV or the close", err)
	}
}

func TestBoardCopyOfADescriptorKeepsTheLineWhenTheFirstIsClosed(t *testing.T) {
	s := newSimChip(t, "handover", "")
	cfg := lineConfig{consumer: "sp:relay", out: true, value: true}
	r := s.request(t, 0, cfg)
	fd, err := fdOf(r.file)
	if err != nil {
		t.Fatal(err)
	}
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if !s.level(t, 0) {
		t.Error("the pin fell with the first descriptor")
	}
	c, err := (&host{}).findChip(s.label, "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := findLine(c, "", 0)
	if err != nil || l.differs(&cfg) != "" {
		t.Errorf("adopt: got %q, %v, want no difference", l.differs(&cfg), err)
	}
	other := cfg
	other.activeLow = true
	if l.differs(&other) == "" {
		t.Error("another polarity is no difference")
	}
	back, err := holdLine(c, copied, l, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	if on, err := back.get(); !on || err != nil {
		t.Errorf("got %v, %v, want high", on, err)
	}
	back.Close()
	if s.level(t, 0) {
		t.Error("the simulator's pin stays high after the last descriptor")
	}
}
