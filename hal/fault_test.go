package hal_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

func TestEachFaultOfTheBoardHasItsCode(t *testing.T) {
	t.Parallel()
	read := []hal.Op{{Write: []byte{0x10}, Read: 1}}
	for name, c := range map[string]struct {
		fault hal.Fault
		do    func(t *testing.T, s *hal.Server) error
		want  hal.Code
	}{
		"no acknowledge": {hal.Fault{Nack: 1}, func(t *testing.T, s *hal.Server) error {
			_, err := s.Transfer(t.Context(), "a", "imu", read, 0)
			return err
		}, hal.Nack},
		"SDA stuck for 2 s": {hal.Fault{Stuck: 2 * time.Second}, func(t *testing.T, s *hal.Server) error {
			_, err := s.Transfer(t.Context(), "a", "imu", read, 0)
			return err
		}, hal.TimedOut},
		"unplugged": {hal.Fault{Gone: true}, func(t *testing.T, s *hal.Server) error {
			_, err := s.Transfer(t.Context(), "a", "imu", read, 0)
			return err
		}, hal.Absent},
		"unplugged while it is watched": {hal.Fault{Gone: true}, func(t *testing.T, s *hal.Server) error {
			_, err := s.Watch(t.Context(), "a", "imu", 0)
			return err
		}, hal.Absent},
		"a batch that meets it": {hal.Fault{Nack: 1}, func(t *testing.T, s *hal.Server) error {
			_, err := s.Batch(t.Context(), "a", []hal.Step{{Name: "imu", Op: &read[0]}}, 0)
			return err
		}, hal.Nack},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
				sim.Fail("imu", c.fault)
				synctest.Wait()
				wantCode(t, c.do(t, s), c.want)
				<-time.After(3 * time.Second)
				sim.Fail("imu", hal.Fault{})
				synctest.Wait()
				if _, err := s.Transfer(t.Context(), "a", "imu", read, 0); err != nil {
					t.Errorf("mended: got %v", err)
				}
			})
		})
	}
}

func TestALineThatIsBusyNamesItsConsumerAndComesWhenItIsFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim := hal.NewSim()
		held, err := sim.Open(t.Context(), board()[0])
		if err != nil {
			t.Fatal(err)
		}
		s, err := hal.New(hal.ServerConfig{Resources: board(), Backend: sim})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Grant("a", everything()); err != nil {
			t.Fatal(err)
		}
		ended := run(t, s)
		synctest.Wait()
		if i := slices.IndexFunc(s.List("a"), func(st hal.Status) bool { return st.Name == "relay" }); s.List("a")[i].State != "busy" {
			t.Errorf("got state %s, want busy", s.List("a")[i].State)
		}
		if err := held.Close(); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second) // nothing tells that a line is free
		if _, err := s.Write(t.Context(), "a", "relay", 1, 0, 0); err != nil {
			t.Errorf("free again: got %v", err)
		}
		ended()
	})
}

func TestAGrantRevokedDuringATransferGivesNoAnswerAndLeavesTheOutputSafe(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		if _, err := s.Write(t.Context(), "a", "relay", 1, 0, 0); err != nil {
			t.Fatal(err)
		}
		sim.Fail("imu", hal.Fault{Stuck: 500 * time.Millisecond})
		answer := make(chan error, 2)
		for range 2 { // one under way, one in the queue
			go func() {
				_, err := s.Transfer(t.Context(), "a", "imu", []hal.Op{{Write: []byte{0x10, 1}}}, 0)
				answer <- err
			}()
		}
		synctest.Wait()
		if err := s.Grant("a", nil); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		codes := []string{fmt.Sprint(<-answer), fmt.Sprint(<-answer)}
		slices.Sort(codes)
		if codes[0] != "<nil>" || codes[1] == "<nil>" {
			t.Errorf("got %v, want the one under way done and the other refused", codes)
		}
		wantTrace(t, sim, 0, 1, 0)
	})
}

func TestAModuleThatIsKilledWhileItsWriteIsUnderWayLeavesTheOutputSafe(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		sim.Fail("relay", hal.Fault{Stuck: 300 * time.Millisecond})
		caller, killed := context.WithCancel(t.Context())
		answer := make(chan error, 1)
		go func() {
			_, err := s.Write(caller, "a", "relay", 1, 0, 0)
			answer <- err
		}()
		synctest.Wait()
		killed()
		s.Gone("a", "module ended")
		<-answer // nobody is there to read it
		<-time.After(time.Second)
		if trace := sim.Trace("relay"); trace[len(trace)-1] != 0 {
			t.Errorf("got trace %v, want the output safe at its end", trace)
		}
		if held := s.Leases(); len(held) != 0 {
			t.Errorf("got %+v, want no lease", held)
		}
	})
}

func TestAFenceOfTheAgentBeforeIsOfNoUse(t *testing.T) {
	t.Parallel()
	old := uint64(0)
	for life := range 2 {
		bench(t, everything(), func(t *testing.T, s *hal.Server, _ *hal.Sim) {
			if life == 1 {
				_, err := s.Write(t.Context(), "a", "relay", 1, 0, old)
				wantCode(t, err, hal.LeaseLost)
				return
			}
			var err error
			if old, err = s.Write(t.Context(), "a", "relay", 1, 0, 0); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestALeaseThatExpiresBeforeItsWriteHasATurnSendsNothing(t *testing.T) {
	t.Parallel()
	grants := []hal.Grant{{Name: "relay", Write: true, Deadman: 100 * time.Millisecond}, {Name: "door", Read: true}}
	bench(t, grants, func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		if _, err := s.Write(t.Context(), "a", "relay", 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		sim.Fail("door", hal.Fault{Stuck: 500 * time.Millisecond}) // the door is on the relay's bus
		go func() { _, _ = s.Read(t.Context(), "a", "door", hal.ClassRead, 0) }()
		synctest.Wait()
		_, err := s.Write(t.Context(), "a", "relay", 1, 0, 0)
		wantCode(t, err, hal.LeaseLost)
		wantTrace(t, sim, 0)
	})
}

func TestAThousandReplacementsOfGrantsUnderLoadLeaveTheOutputSafe(t *testing.T) {
	t.Parallel()
	sim := hal.NewSim()
	s, err := hal.New(hal.ServerConfig{Resources: board(), Backend: sim})
	if err != nil {
		t.Fatal(err)
	}
	ended := run(t, s)
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				_, _ = s.Write(t.Context(), "a", "relay", float64(i%2), 0, 0) // refused now and then, as it should be
				_, _ = s.Transfer(t.Context(), "a", "imu", []hal.Op{{Write: []byte{0x10}, Read: 1}}, 0)
			}
		})
	}
	for i := range 1000 {
		grants := everything()
		if i%2 == 1 {
			grants = nil
		}
		if err := s.Grant("a", grants); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	load.Wait()
	if err := s.Grant("a", []hal.Grant{{Name: "relay", Read: true}}); err != nil {
		t.Fatal(err)
	}
	s.Gone("a", "end of the test")
	if v, err := s.Read(t.Context(), "a", "relay", hal.ClassRead, 0); err != nil || v.Num != 0 {
		t.Errorf("got %v, %v, want the relay safe", v.Num, err)
	}
	ended()
}

func TestFramesAndUnitsThatAreNoneAreRefusedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	can := hal.Resource{Name: "body", Kind: hal.KindCAN, Bus: "can0", Allow: []string{"*"}, CAN: &hal.CANPart{Interface: "can0", TX: []hal.IDMask{{ID: 0x321, Mask: 0x7ff | hal.CANExtended}}}}
	meter := hal.Resource{Name: "meter", Kind: hal.KindModbus, Bus: "s", Allow: []string{"*"}, Modbus: &hal.ModbusPart{Unit: 3,
		Read: []hal.TableRange{{Table: "holding", Range: hal.Range{Last: 99}}}, Write: []hal.TableRange{{Table: "coil", Range: hal.Range{First: 7, Last: 7}}}}}
	right := func(r hal.Resource, rw bool) *hal.Effective {
		e, err := hal.Permit(&r, "a", &hal.Grant{Name: r.Name, Read: true, Write: rw})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for name, c := range map[string]struct {
		right *hal.Effective
		op    hal.Op
		want  hal.Code
	}{
		"a frame":                      {right(can, true), hal.Op{ID: 0x321, Write: []byte("8 bytes.")}, ""},
		"a frame of nine bytes":        {right(can, true), hal.Op{ID: 0x321, Write: []byte("nine byte")}, hal.Invalid},
		"a remote frame":               {right(can, true), hal.Op{ID: 0x321 | hal.CANRemote}, hal.Invalid},
		"an error frame":               {right(can, true), hal.Op{ID: 0x321 | hal.CANError}, hal.Invalid},
		"an extended one of its bits":  {right(can, true), hal.Op{ID: 0x321 | hal.CANExtended}, hal.Denied},
		"the identifier beside it":     {right(can, true), hal.Op{ID: 0x322}, hal.Denied},
		"an identifier of 12 bits":     {right(can, true), hal.Op{ID: 0x800}, hal.Invalid},
		"a read of what may be read":   {right(meter, false), hal.Op{Fn: hal.ReadHolding, Addr: 90, N: 10}, ""},
		"one register past it":         {right(meter, false), hal.Op{Fn: hal.ReadHolding, Addr: 90, N: 11}, hal.Denied},
		"around the corner":            {right(meter, false), hal.Op{Fn: hal.ReadHolding, Addr: 65535, N: 2}, hal.Invalid},
		"a write under a read grant":   {right(meter, false), hal.Op{Fn: hal.WriteCoils, Addr: 7, N: 1, Write: []byte{1}}, hal.Denied},
		"a write of the coil":          {right(meter, true), hal.Op{Fn: hal.WriteCoils, Addr: 7, N: 1, Write: []byte{1}}, ""},
		"a write of registers":         {right(meter, true), hal.Op{Fn: hal.WriteHoldings, Addr: 7, N: 1, Write: []byte{0, 1}}, hal.Denied},
		"fewer bytes than it says":     {right(meter, true), hal.Op{Fn: hal.WriteCoils, Addr: 7, N: 1}, hal.Invalid},
		"a function of another number": {right(meter, true), hal.Op{Fn: "read-file", N: 1}, hal.Unsupported},
	} {
		err := c.right.CheckOps([]hal.Op{c.op})
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestANoisyModuleLeavesAnotherItsTurns(t *testing.T) {
	t.Parallel()
	bench(t, everything(), func(t *testing.T, s *hal.Server, sim *hal.Sim) {
		op := []hal.Op{{Write: []byte{0x10}, Read: 1}}
		refused := 0
		answers := make(chan error, 200)
		sim.Fail("imu", hal.Fault{Stuck: 10 * time.Millisecond})
		for range 200 { // far more than its queue holds
			go func() {
				_, err := s.Transfer(t.Context(), "a", "imu", op, 0)
				answers <- err
			}()
		}
		synctest.Wait()
		start := time.Now()
		if _, err := s.Transfer(t.Context(), "b", "imu", op, 0); err != nil {
			t.Errorf("the quiet module: got %v", err)
		}
		if took := time.Since(start); took > 20*time.Millisecond {
			t.Errorf("the quiet module waited %v behind the noisy one's queue", took)
		}
		for range 200 {
			if err := <-answers; errors.Is(err, hal.TooFast) {
				refused++
			}
		}
		if refused < 100 {
			t.Errorf("got %d refusals of 200, want the queue bounded at 64", refused)
		}
	})
}
