package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// The child of TestBoardKilledHoldersNeverMoveTheLine: it requests the relay, or adopts the descriptor that comes over
// the socket, holds it high, gives a copy away, and waits to be killed.
const holderVar = "SANDPIPER_TEST_HOLDER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(holderVar); mode != "" {
		run := hold
		switch mode {
		case "warden":
			run = beWarden
		case "agent":
			run = beAgent
		case "module":
			run = beModule
		}
		if err := run(mode); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var killRelay = outputAt("kill", "RELAY", 0)

func hold(mode string) error {
	const socket = 3
	b, err := NewBoard(Config{})
	if err != nil {
		return err
	}
	var got hal.Device
	if mode == "first" {
		if got, err = b.Open(context.Background(), killRelay); err != nil {
			return err
		}
		if err := got.(hal.Line).Set(context.Background(), true); err != nil {
			return err
		}
	} else {
		fd, err := receiveFD(socket)
		if err != nil {
			return err
		}
		if got, err = b.Adopt(context.Background(), killRelay, fd); err != nil {
			return err
		}
	}
	l := got.(hal.Line)
	if on, err := l.Get(context.Background()); !on || err != nil {
		return fmt.Errorf("the relay is %v: %w", on, err)
	}
	fd, _ := l.(hal.Holder).FD(0)
	if err := unix.Sendmsg(socket, []byte("held"), unix.UnixRights(fd), nil, 0); err != nil {
		return err
	}
	<-time.After(time.Hour) // it is killed; a select without cases would be a deadlock where nothing else runs
	return nil
}

func receiveFD(socket int) (int, error) {
	buf, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(list) != 1 {
		return -1, fmt.Errorf("%d bytes and %d messages: %w", n, len(list), errors.Join(err, unix.EPROTO))
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(err, unix.EPROTO)
	}
	return fds[0], nil
}

// holder starts a child and returns what keeps it: the copy of the descriptor that it gave away.
func holder(t *testing.T, kept int) (cmd *exec.Cmd, copied int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	far := os.NewFile(uintptr(pair[1]), "far")
	cmd = exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env, cmd.ExtraFiles, cmd.Stderr = append(os.Environ(), holderVar+"=first"), []*os.File{far}, os.Stderr
	if kept >= 0 {
		cmd.Env = append(os.Environ(), holderVar+"=adopt")
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	far.Close()
	if kept >= 0 {
		if err := unix.Sendmsg(pair[0], []byte("take"), unix.UnixRights(kept), nil, 0); err != nil {
			t.Fatal(err)
		}
		unix.Close(kept)
	}
	if copied, err = receiveFD(pair[0]); err != nil {
		t.Fatal(err)
	}
	return cmd, copied
}

func end(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it should be
}

// One process after the other holds the relay high and is killed with SIGKILL; a keeper has a copy of the descriptor
// in between. The kernel's trace of the pin may show one rise and nothing after it.
func TestBoardKilledHoldersNeverMoveTheLine(t *testing.T) {
	s := newSimChip(t, "kill", "RELAY")
	tr := s.trace(t)
	kills := 25 // of the descriptor alone; whole agents are killed 200 times in TestBoardKilledAgentsNeverMoveARelayThatIsHigh
	if n, err := strconv.Atoi(os.Getenv("LAB_TEST_KILLS")); err == nil {
		kills = n
	}
	kept := -1
	for i := range kills {
		var cmd *exec.Cmd
		cmd, kept = holder(t, kept)
		end(t, cmd)
		if !s.level(t, 0) {
			t.Fatalf("the pin fell with holder %d", i)
		}
	}
	got := tr.of(t, 0)
	if !slices.Equal(got, []string{"set 0", "out", "set 1"}) {
		t.Errorf("trace over %d kills: got %v, want the request and one rise", kills, got)
	}
	t.Logf("%d holders killed, trace %v", kills, got)
	unix.Close(kept)
}

// A holder that hangs cannot keep the keeper from making the pin safe, once, and from holding it there; the holder's
// end after that moves nothing, and the last copy's is the controller's choice.
func TestBoardStoppedHolderIsMadeSafeByItsKeeper(t *testing.T) {
	s := newSimChip(t, "kill", "RELAY")
	tr := s.trace(t)
	cmd, kept := holder(t, -1)
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if !s.level(t, 0) {
		t.Error("the pin fell when its holder was stopped")
	}
	if err := MakeSafe(kept, hal.SafeAction{Set: true, Mask: 1}); err != nil || s.level(t, 0) {
		t.Errorf("safe action: got %v, the pin %v", err, s.level(t, 0))
	}
	end(t, cmd)
	if got := tr.of(t, 0); !slices.Equal(got, []string{"set 0", "out", "set 1", "set 0"}) {
		t.Errorf("trace: got %v, want one rise and one fall", got)
	}
	c, err := (&host{}).findChip("kill", "")
	if err != nil {
		t.Fatal(err)
	}
	if l, err := findLine(c, "RELAY", 0); err != nil || !l.used() {
		t.Errorf("the keeper's line: got %+v, %v, want it still requested", l, err)
	}
	unix.Close(kept)
}
