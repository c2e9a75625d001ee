package linux

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// door is an input of a simulated chip with its reader of edges.
func door(t *testing.T, s simChip, change func(*hal.LinePart)) (hal.Line, hal.EdgeReader) {
	t.Helper()
	r := inputAt(s.label, "DOOR")
	change(r.Line)
	l := opened[hal.Line](t, newBackend(t, ""), r)
	edges, err := l.Edges(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l, edges
}

// A pulse that ends before the interrupt's thread has looked at the pin shows as two edges in one direction without a gap in the sequence:
// it is in no count but ours, and ours is a lower bound.
func TestBoardPulsesThatAreTooFastForTheirInterruptAreCountedAsMerged(t *testing.T) {
	s := newSimChip(t, "merge", "DOOR")
	_, edges := door(t, s, func(p *hal.LinePart) { p.Buffer = maxFIFO })
	pin, err := os.OpenFile(s.file(0, "pull"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	var merged atomic.Uint64
	var got, lost uint64
	var last hal.Event
	ended := make(chan struct{})
	go func() { // ends when the reader is closed
		defer close(ended)
		var into [64]hal.Event
		for {
			n, err := edges.Read(context.Background(), into[:])
			if err != nil {
				return
			}
			for _, e := range into[:n] {
				if again := e.Edge == last.Edge && e.Lost == 0; (e.Merged > 0) != again {
					t.Errorf("got %+v after %+v, want merged where one direction comes twice in sequence", e, last)
				}
				got, lost, last = got+1, lost+e.Lost, e
				merged.Add(e.Merged)
			}
		}
	}()
	made := uint64(0)
	for began := time.Now(); merged.Load() == 0 && time.Since(began) < 20*time.Second; {
		for range 100 {
			for _, to := range []string{"pull-up", "pull-down"} {
				if _, err := pin.WriteAt([]byte(to), 0); err != nil {
					t.Fatal(err)
				}
				made++
			}
		}
	}
	if err := edges.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	// That it is no bound of the missing ones is the kernel's: it reads the direction of an edge from the level after it, late.
	if n := merged.Load(); n == 0 || got+lost != last.Seq || got+lost >= made {
		t.Errorf("%d edges: got %d, lost %d, merged %d, the last %+v; want some merged, each in the sequence, and fewer than were made", made, got, lost, n, last)
	}
	t.Logf("%d edges made: %d events, %d lost, %d merged", made, got, lost, merged.Load())
}

func TestBoardBouncingContactGivesOneEdgeAfterItsQuietTime(t *testing.T) {
	const quiet = time.Second // far longer than the bouncing takes on an emulated board
	s := newSimChip(t, "bounce", "DOOR")
	l, edges := door(t, s, func(p *hal.LinePart) { p.Debounce = hal.Duration(quiet) })
	var into [64]hal.Event
	for i, up := range []bool{true, false} {
		before := monotonic()
		for _, bounce := range []bool{up, !up, up, !up, up} {
			s.pull(t, 0, bounce)
		}
		n, err := edges.Read(t.Context(), into[:])
		want := hal.Falling
		if up {
			want = hal.Rising
		}
		if err != nil || n != 1 || into[0].Edge != want || into[0].Seq != uint64(i+1) {
			t.Fatalf("got %d edges, the first %+v, %v; want one %v", n, into[0], err, want)
		}
		if late := time.Duration(into[0].Mono - before); late < quiet*9/10 { // counted in jiffies
			t.Errorf("the edge is of %v after the first bounce, want the end of the quiet time", late)
		}
		if on, err := l.Get(t.Context()); on != up || err != nil {
			t.Errorf("level: got %v, %v, want %v", on, err, up)
		}
	}
}

func TestBoardUeventThatIsNotTheKernelsIsNotHeard(t *testing.T) {
	onBoard(t)
	u, err := openUevents()
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	forged := "remove@/devices/forged\x00ACTION=remove\x00DEVPATH=/devices/forged\x00SUBSYSTEM=gpio\x00"
	if err := unix.Sendto(fd, []byte(forged), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		t.Fatalf("nothing was forged: %v", err)
	}
	put(t, "/sys/class/mem/null/uevent", "change")
	if got, err := u.read(); err != nil || got.devpath != "/devices/virtual/mem/null" {
		t.Errorf("got %+v, %v, want the kernel's own as the first", got, err)
	}
}

// Where the kernel could not tell everything it says so once, and the board is looked at as a whole.
func TestBoardUeventsThatWereLostMakeOneLookAtEverything(t *testing.T) {
	onBoard(t, "gpio_sim")
	u, err := openUevents()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := fdOf(u.file)
	if err != nil {
		t.Fatal(err)
	}
	room := func(bytes int) {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes); err != nil {
			t.Fatal(err)
		}
	}
	room(1) // the kernel's least
	for range 200 {
		put(t, "/sys/class/mem/null/uevent", "change")
	}
	room(1 << 20)
	out := make(chan hal.Change, 64)
	ended := make(chan struct{})
	go func() {
		newBackend(t, "").follow(context.Background(), u, out)
		close(ended)
	}()
	if c := <-out; !c.Present || c.Match != nil {
		t.Errorf("after an overrun: got %+v, want one that matches anything", c)
	}
	newSimChip(t, "later", "DOOR")
	if c := <-out; !c.Present || c.Node == "" {
		t.Errorf("after that: got %+v, want the chip that came", c)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestBoardWatchdogIsNeitherListedNorOpened(t *testing.T) {
	onBoard(t, "softdog")
	b := newBackend(t, "")
	list, err := b.Scan(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		for _, m := range f.Match {
			if m.Value == "softdog" || m.Value == "/dev/watchdog" || m.Value == "/dev/watchdog0" {
				t.Errorf("a scan shows %+v", f)
			}
		}
	}
	if got := line(t, "/sys/class/watchdog/watchdog0/state"); got != "inactive" {
		t.Errorf("after a scan the watchdog is %s: opening it starts it", got)
	}
	if _, err := b.Open(t.Context(), hal.Resource{Name: "dog", Kind: "watchdog"}); !codeIs(err, CodeUnsupported) {
		t.Errorf("open: got %v, want unsupported", err)
	}
	for _, path := range []string{"/dev/watchdog", "/dev/watchdog0"} {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("this board has no %s, so this test shows nothing: %v", path, err)
		}
	}
}
