package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestEachNumberOfTheKernelHasItsCodeForItsKindOfResource(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind Kind
		err  error
		want hal.Code
	}{
		"no acknowledge of the address":  {KindI2C, unix.EREMOTEIO, hal.Nack},
		"the same by another adapter":    {KindI2C, unix.ENXIO, hal.Nack},
		"no acknowledge of a byte":       {KindI2C, unix.EIO, hal.Nack},
		"an adapter that lost the bus":   {KindI2C, unix.EAGAIN, hal.Stuck},
		"an adapter that gave up":        {KindI2C, unix.ETIMEDOUT, hal.TimedOut},
		"an adapter without messages":    {KindI2C, unix.EOPNOTSUPP, hal.Unsupported},
		"a driver's own number":          {KindI2C, unix.Errno(524), hal.Unsupported},
		"another's line":                 {KindLine, unix.EBUSY, hal.Busy},
		"a line without an interrupt":    {KindLine, unix.ENXIO, hal.Unsupported},
		"an unplugged chip":              {KindLine, unix.ENODEV, hal.Absent},
		"a port that went":               {KindSerial, unix.EIO, hal.Absent},
		"RS-485 where there is none":     {KindSerial, unix.ENOTTY, hal.Unsupported},
		"an interface that is down":      {KindCAN, unix.ENETDOWN, hal.Absent},
		"a full queue of an interface":   {KindCAN, unix.ENOBUFS, hal.Busy},
		"a sensor without a value yet":   {KindSensor, unix.EAGAIN, hal.Busy},
		"a sensor that has none":         {KindSensor, unix.ENODATA, hal.Busy},
		"an exception of a Modbus unit":  {KindModbus, errRefused, hal.Nack},
		"a frame of nonsense":            {KindModbus, unix.EPROTO, hal.Nack},
		"a port that nobody listens on":  {KindModbus, unix.ECONNREFUSED, hal.Absent},
		"more than fits":                 {KindSPI, unix.EMSGSIZE, hal.OutOfRange},
		"a file that is not there":       {KindLED, fs.ErrNotExist, hal.Absent},
		"an agent that may not":          {KindPWM, unix.EACCES, hal.Denied},
		"a deadline of ours":             {KindSerial, os.ErrDeadlineExceeded, hal.TimedOut},
		"a deadline of the caller":       {KindModbus, context.DeadlineExceeded, hal.TimedOut},
		"a name that fits several":       {KindLine, ErrAmbiguous, hal.Absent},
		"what has its code already":      {KindLine, &Error{Code: hal.LeaseLost}, hal.LeaseLost},
		"a number that nobody has named": {KindSPI, unix.EXFULL, hal.Nack},
	} {
		err := coded(c.kind, fmt.Errorf("do it: %w", c.err))
		if got := hal.CodeOf(err); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: got %s of %v, want %s and the cause", name, got, err, c.want)
		}
	}
}

func TestAListThatTheWardenDidNotFinishGivesWhatCame(t *testing.T) {
	t.Parallel()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKeeper(pair[0], time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer k.conn.Close()
	first, err := json.Marshal(vaultAnswer{Seq: 1, Key: "lamp", State: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	lamp := brightness(t, "7")
	if err := unix.Sendmsg(pair[1], first, unix.UnixRights(int(lamp.Fd())), nil, unix.MSG_NOSIGNAL); err != nil {
		t.Fatal(err)
	}
	if err := unix.Shutdown(pair[1], unix.SHUT_WR); err != nil { // it died in the middle
		t.Fatal(err)
	}
	list, err := k.List()
	if err == nil || len(list) != 1 || list[0].Key != "lamp" {
		t.Fatalf("got %+v, %v; want the lamp and an error", list, err)
	}
	if err := errors.Join(unix.Close(list[0].FD), unix.Close(pair[1])); err != nil {
		t.Error(err)
	}
}

// TestBoardClockThatJumpsAYearEndsNoPulseAndNoLease sets the board's clock: nothing but a virtual board may lose its time so.
func TestBoardClockThatJumpsAYearEndsNoPulseAndNoLease(t *testing.T) {
	onBoard(t)
	zero := 0.0
	sim := hal.NewSim()
	relay := func(name string) hal.Resource {
		return hal.Resource{Name: name, Kind: KindLine, Bus: "chip", Safe: &zero, Allow: []string{"*"}, Line: &hal.LinePart{Chip: "sim", Direction: hal.Out}}
	}
	s, err := hal.New(hal.ServerConfig{Resources: []hal.Resource{relay("pulse"), relay("lease")}, Backend: sim})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Grant("a", []hal.Grant{{Name: "pulse", Write: true}, {Name: "lease", Write: true, Deadman: 30 * time.Second}}); err != nil {
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
	fence, err := s.Write(t.Context(), "a", "lease", 1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := s.Write(t.Context(), "a", "pulse", 1, 2*time.Second, 0); err != nil {
		t.Fatal(err)
	}
	const year = 365 * 24 * 60 * 60
	jump := func(seconds int64) {
		var now unix.Timeval
		if err := unix.Gettimeofday(&now); err != nil {
			t.Fatal(err)
		}
		later := unix.NsecToTimeval(now.Nano() + seconds*1e9)
		if err := unix.Settimeofday(&later); err != nil {
			t.Fatal(err)
		}
	}
	for _, seconds := range []int64{year, -2 * year, year} {
		jump(seconds)
		if got := sim.Trace("pulse"); len(got) != 2 {
			t.Errorf("a jump of %d s: got trace %v, want the pulse to go on", seconds, got)
		}
		if fence, err = s.Write(t.Context(), "a", "lease", 1, 0, fence); err != nil {
			t.Errorf("a jump of %d s: got %v, want the lease to go on", seconds, err)
		}
	}
	for len(sim.Trace("pulse")) != 3 {
		if time.Since(began) > 20*time.Second {
			t.Fatal("the pulse does not end")
		}
		<-time.After(10 * time.Millisecond)
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("the pulse of 2 s ended after %v", took)
	}
}
