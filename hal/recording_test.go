package hal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/hal/haltest"
)

// record writes down what act does with resources, as the agent does.
func record(t *testing.T, s *hal.Server, names []string, act func()) string {
	t.Helper()
	var file strings.Builder
	out := json.NewEncoder(&file)
	began := time.Now()
	if err := out.Encode(hal.Recording{Version: 1, Time: began, Names: names}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Record(ctx, began, names, func(list []hal.Record) error {
			if list == nil {
				close(ready)
			}
			for _, r := range list {
				if err := out.Encode(r); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	<-ready
	act()
	synctest.Wait()
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return file.String()
}

// visit uses each kind of resource, and gives what it saw.
func visit(t *testing.T, s *hal.Server) (saw []string) {
	t.Helper()
	say := func(what string, v any, err error) { saw = append(saw, fmt.Sprintf("%s %v %s", what, v, errCode(err))) }
	edges, err := s.Watch(t.Context(), "a", "door", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{1, 0, 1} {
		_, err := s.Write(t.Context(), "a", "relay", v, 0, 0)
		say("write", v, err)
		var got [4]hal.Event
		n, err := edges.Next(t.Context(), got[:])
		say("edge", got[0].Edge, err)
		if n != 1 {
			t.Errorf("got %d edges, want one", n)
		}
		<-time.After(100 * time.Millisecond)
	}
	for range 2 {
		v, err := s.Read(t.Context(), "a", "level", hal.ClassRead, 0)
		say("level", v.Num, err)
	}
	ops, err := s.Transfer(t.Context(), "a", "imu", []hal.Op{{Write: []byte{0x10, 0xa5}}, {Write: []byte{0x10}, Read: 2}}, 0)
	say("imu", ops, err)
	_, err = s.Transfer(t.Context(), "a", "imu", []hal.Op{{Write: []byte{0x11}, Read: 1}}, 0)
	say("imu", nil, err)
	s.Gone("a", "module ended") // which is a write, too
	return saw
}

func errCode(err error) string {
	if err == nil {
		return "ok"
	}
	return string(hal.CodeOf(err))
}

func TestWhatWasRecordedIsPlayedAgainByteForByte(t *testing.T) {
	t.Parallel()
	var first []string
	var file string
	names := []string{"relay", "door", "level", "imu"}
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		sim.Set("level", 21500)
		file = record(t, s, names, func() {
			first = visit(t, s)
		})
	})
	if !strings.Contains(file, `"op":"transfer","w":"10a5","more":true}`) || !strings.Contains(file, `"w":"10","r":"a500","n":2}`) || !strings.Contains(file, `"op":"edge"`) {
		t.Fatalf("got recording\n%s", file)
	}
	play(t, file, func(t *testing.T, s *hal.Server) {
		if again := visit(t, s); !reflect.DeepEqual(again, first) {
			t.Errorf("got  %v\nwant %v", again, first)
		}
	})
}

// play serves a recording exactly.
func play(t *testing.T, file string, test func(t *testing.T, s *hal.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := hal.New(hal.ServerConfig{Resources: board(), Backend: haltest.Replay(t, strings.NewReader(file))})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Grant("a", everything()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		test(t, s)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

const (
	head = `{"recording":1,"time":"2026-01-02T03:04:05Z","names":["imu","level"]}` + "\n"
	imu  = `{"t":1,"name":"imu","op":"transfer","w":"10","r":"a5","n":1}` + "\n" + `{"t":2,"name":"imu","op":"transfer","w":"11a5","err":"nack"}` + "\n"
)

// failures collects what a test would have been failed with.
type failures struct {
	testing.TB
	said  []string
	later []func()
}

func (f *failures) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}
func (f *failures) Failed() bool      { return len(f.said) > 0 }
func (f *failures) Cleanup(do func()) { f.later = append(f.later, do) }

func TestAReplayFailsAtTheFirstByteThatDiffersAndWhenSomethingIsLeft(t *testing.T) {
	t.Parallel()
	chip := board()[2]
	for name, c := range map[string]struct {
		ops  []hal.Op
		want string
	}{
		"as recorded":     {[]hal.Op{{Write: []byte{0x10}, Read: 1}, {Write: []byte{0x11, 0xa5}}}, ""},
		"another byte":    {[]hal.Op{{Write: []byte{0x10}, Read: 1}, {Write: []byte{0x11, 0xa6}}}, "imu: operation 2 of the recording: written byte 1 differs: got 11a6, recorded 11a5"},
		"a shorter write": {[]hal.Op{{Write: []byte{0x10}, Read: 1}, {Write: []byte{0x11}}}, "written byte 1"},
		"a longer read":   {[]hal.Op{{Write: []byte{0x10}, Read: 2}}, "got a transfer that writes 10 and reads 2, recorded a transfer that writes 10 and reads 1"},
		"another order":   {[]hal.Op{{Write: []byte{0x11, 0xa5}}}, "operation 1 of the recording: written byte 0"},
		"once more":       {[]hal.Op{{Write: []byte{0x10}, Read: 1}, {Write: []byte{0x11, 0xa5}}, {Write: []byte{0x10}, Read: 1}}, "the recording ends after 2 operations, and then came a transfer that writes 10"},
		"too little":      {[]hal.Op{{Write: []byte{0x10}, Read: 1}}, "the recording has 1 more operations of imu"},
	} {
		f := &failures{TB: t}
		sim := haltest.Replay(f, strings.NewReader(head+imu))
		dev, err := sim.Open(t.Context(), chip)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.ops {
			_ = dev.(hal.Bus).Do(t.Context(), c.ops[i:i+1]) // what it says is in f
		}
		for _, later := range f.later {
			later()
		}
		if got := strings.Join(f.said, "\n"); !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestARecordedChipIsPlayedToADriverOfPeriph(t *testing.T) {
	t.Parallel()
	p := haltest.Playback(t, strings.NewReader(head+strings.SplitAfter(imu, "\n")[0]), "imu", 0x68)
	got := make([]byte, 1)
	if err := p.Tx(0x68, []byte{0x10}, got); err != nil || got[0] != 0xa5 {
		t.Errorf("got %x, %v; want a5", got, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestASimulatedBoardPlaysARecordingOverAndOverAndInAnyOrder(t *testing.T) {
	t.Parallel()
	rec, err := hal.ReadRecording(strings.NewReader(head + imu + `{"t":3,"name":"level","op":"read","v":21500}` + "\n" + `{"t":4,"name":"level","op":"read","v":21600}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	sim := hal.NewSim()
	sim.Play(rec, nil)
	dev, err := sim.Open(t.Context(), board()[2])
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantCode(t, dev.(hal.Bus).Do(t.Context(), []hal.Op{{Write: []byte{0x11, 0xa5}}}), hal.Nack)
		ops := []hal.Op{{Write: []byte{0x10}, Read: 1}}
		if err := dev.(hal.Bus).Do(t.Context(), ops); err != nil || ops[0].Data[0] != 0xa5 {
			t.Errorf("got %x, %v; want a5", ops[0].Data, err)
		}
	}
	wantCode(t, dev.(hal.Bus).Do(t.Context(), []hal.Op{{Write: []byte{0x42}}}), hal.Broken)
	level, err := sim.Open(t.Context(), board()[3])
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if v, err := level.(hal.Sensor).Read(t.Context()); err != nil || v.Num != 21500+float64(i%2)*100 {
			t.Errorf("read %d: got %g, %v", i, v.Num, err)
		}
	}
}

func TestAnInputThatIsSetFollowsItsWaveNoMore(t *testing.T) {
	t.Parallel()
	sim, r := hal.NewSim(), board()[3]
	r.Sim = &hal.Wave{Wave: "sine", Min: 20, Max: 80, Period: hal.Duration(time.Hour)}
	dev, err := sim.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := dev.(hal.Sensor).Read(t.Context()); err != nil || v.Num < 20 || v.Num > 80 {
		t.Errorf("the wave: got %g, %v", v.Num, err)
	}
	sim.Set(r.Name, 99)
	if v, err := dev.(hal.Sensor).Read(t.Context()); err != nil || v.Num != 99 {
		t.Errorf("set: got %g, %v, want 99", v.Num, err)
	}
}

func TestOneRecordsAResourceAtATimeAndOnlyWhatThereIs(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, _ *hal.Sim) {
		again := func(name string) error {
			return s.Record(t.Context(), time.Now(), []string{name}, func([]hal.Record) error { return context.Canceled })
		}
		record(t, s, []string{"imu"}, func() { wantCode(t, again("imu"), hal.Busy) })
		wantCode(t, again("nothing"), hal.Unknown)
		if err := again("imu"); !errors.Is(err, context.Canceled) {
			t.Errorf("after the first has ended: got %v, want it recorded", err)
		}
	})
}

func TestARecorderThatIsSlowIsToldWhatItMissed(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, _ *hal.Sim) {
		const reads = 3000
		got, lost := 0, uint64(0)
		began, first := make(chan struct{}), true
		slow := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- s.Record(ctx, time.Now(), []string{"level"}, func(list []hal.Record) error {
				if first {
					first = false
					close(began)
					<-slow
				}
				for _, r := range list {
					got++
					lost += r.Lost
				}
				return nil
			})
		}()
		<-began
		read := func() {
			if _, err := s.Read(t.Context(), "a", "level", hal.ClassRead, 0); err != nil {
				t.Error(err)
			}
		}
		for range reads {
			read()
		}
		close(slow)
		synctest.Wait()
		read()
		synctest.Wait()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if uint64(got)+lost != reads+1 || lost == 0 {
			t.Errorf("got %d records and %d lost, want %d together", got, lost, reads+1)
		}
	})
}

func TestARecordingThatIsNoneIsRefusedWithItsLine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"nothing":              {"", "line 1: EOF"},
		"another version":      {strings.Replace(head, ":1,", ":2,", 1), "line 1: version 2"},
		"no first line":        {imu, "line 1: version 0"},
		"a name of no use":     {head + `{"t":1,"name":"../x","op":"read"}` + "\n", "line 2: no record: "},
		"an unknown operation": {head + `{"t":1,"name":"x","op":"erase"}` + "\n", "line 2: no record: "},
		"a time before":        {head + `{"t":-1,"name":"x","op":"read"}` + "\n", "line 2: no record: "},
		"a huge read":          {head + `{"t":1,"name":"x","op":"transfer","n":1000000}` + "\n", "line 2: no record: "},
		"an edge of neither":   {head + `{"t":1,"name":"x","op":"edge","edge":"up"}` + "\n", "line 2: no record: "},
		"a code of none":       {head + imu + `{"t":1,"name":"x","op":"read","err":"oops"}` + "\n", "line 4: no record: "},
		"odd hexadecimal":      {head + `{"t":1,"name":"x","op":"transfer","w":"1"}` + "\n", "odd length"},
		"a line without end":   {head + strings.Repeat("x", 1<<18), "line 2: bufio: buffer full"},
		"too many lines":       {head + strings.Repeat(`{"name":"x","op":"read"}`+"\n", 1<<16+1), "more than 16777216 bytes or 65536 records"},
		"too many bytes":       {head + strings.Repeat(`{"name":"x","op":"transfer","w":"`+strings.Repeat("00", 8192)+`"}`+"\n", 1100), "more than 16777216 bytes or 65536 records"},
	} {
		if _, err := hal.ReadRecording(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	if rec, err := hal.ReadRecording(strings.NewReader(head + imu + `{"t":9,"na`)); err != nil || len(rec.Records) != 2 {
		t.Errorf("a last line that was cut off: got %d records, %v; want the whole two", len(rec.Records), err)
	}
}

func FuzzReadRecording(f *testing.F) {
	f.Add([]byte(head + imu))
	f.Add([]byte(head + `{"t":5,"name":"door","op":"edge","seq":3,"edge":"rising","lost":2}` + "\n" + `{"t":1,"name":"can","op":"frame","id":801,"r":"00ff"}` + "\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rec, err := hal.ReadRecording(bytes.NewReader(raw))
		if err != nil {
			return
		}
		var file bytes.Buffer
		out := json.NewEncoder(&file)
		_ = out.Encode(rec) // a buffer takes all
		for _, r := range rec.Records {
			_ = out.Encode(r)
		}
		again, err := hal.ReadRecording(&file)
		if err != nil || len(again.Records) != len(rec.Records) {
			t.Fatalf("got %d records, %v; want the %d that were written", len(again.Records), err, len(rec.Records))
		}
		hal.NewSim().Play(rec, nil)
	})
}
