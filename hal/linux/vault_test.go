package linux

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// keeperOf is an agent's end of a vault.
func keeperOf(t *testing.T, v *Vault, hold time.Duration) *Keeper {
	t.Helper()
	end, err := v.Pass()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(end.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	end.Close()
	k, err := NewKeeper(fd, hold)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.conn.Close() })
	return k
}

// brightness is an output whose safe action writes a file.
func brightness(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "brightness")
	write(t, path, text)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func keep(t *testing.T, k *Keeper, key string, f *os.File, state string) {
	t.Helper()
	if err := k.Keep(key, int(f.Fd()), hal.SafeAction{Bytes: []byte("0")}, []byte(state)); err != nil {
		t.Fatal(err)
	}
}

func TestAVaultGivesTheNextAgentWhatTheOneBeforeLeft(t *testing.T) {
	t.Parallel()
	v, f := NewVault(nil), brightness(t, "7")
	first := keeperOf(t, v, time.Hour)
	keep(t, first, "lamp", f, "one")
	if err := first.Keep("lamp", -1, hal.SafeAction{Bytes: []byte("3")}, []byte("two")); err != nil {
		t.Fatal(err)
	}
	first.conn.Close()
	next := keeperOf(t, v, time.Hour)
	list, err := next.List()
	if err != nil || len(list) != 1 || list[0].Key != "lamp" || string(list[0].State) != "two" || list[0].FD < 0 {
		t.Fatalf("got %+v, %v, want the lamp with its newest state", list, err)
	}
	defer unix.Close(list[0].FD)
	if got := content(t, f.Name()); got != "7" {
		t.Errorf("the hand-over wrote: got %q", got)
	}
	if err := next.Drop("lamp"); err != nil {
		t.Fatal(err)
	}
	if got := content(t, f.Name()); got != "3" {
		t.Errorf("dropped: got %q, want the safe action done", got)
	}
	if list, err := next.List(); err != nil || len(list) != 0 {
		t.Errorf("after the drop: got %+v, %v", list, err)
	}
}

func TestAMissingAgentsOutputsAreMadeSafeAndItIsTold(t *testing.T) {
	t.Parallel()
	v, f := NewVault(nil), brightness(t, "7")
	k := keeperOf(t, v, 20*time.Millisecond)
	keep(t, k, "lamp", f, "")
	becomesSafe(t, f)
	k.hold = time.Hour // a test that is slow is not missing again
	told := 0
	for range 3 {
		k.heard.Store(-int64(k.hold))
		k.Awake(func() { told++ })
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
	if list, err := k.List(); err != nil || len(list) != 1 {
		t.Errorf("got %+v, %v, want it held on", list, err)
	} else {
		unix.Close(list[0].FD)
	}
}

// fullPipe is an output that takes no byte until its other end is read.
func fullPipe(t *testing.T, flags int) (device, world *os.File) {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	for page := make([]byte, 4096); ; {
		if _, err := unix.Write(ends[1], page); err != nil {
			break
		}
	}
	if _, err := unix.FcntlInt(uintptr(ends[1]), unix.F_SETFL, flags); err != nil {
		t.Fatal(err)
	}
	device, world = os.NewFile(uintptr(ends[1]), "device"), os.NewFile(uintptr(ends[0]), "world")
	t.Cleanup(func() { world.Close(); device.Close() })
	return device, world
}

// becomesSafe waits until the lamp was written by its safe action.
func becomesSafe(t *testing.T, f *os.File) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); content(t, f.Name()) != "0"; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the safe action was not done")
		}
	}
}

func TestAnOutputThatHangsHoldsUpNoOtherOfAMissingAgent(t *testing.T) {
	t.Parallel()
	v := NewVault(nil)
	k := keeperOf(t, v, 100*time.Millisecond)
	var lamps []*os.File
	for i := range 8 { // whichever order the vault takes them in
		device, _ := fullPipe(t, 0)
		keep(t, k, "hangs"+string(rune('a'+i)), device, "")
		lamps = append(lamps, brightness(t, "7"))
		keep(t, k, "lamp"+string(rune('a'+i)), lamps[i], "")
	}
	for _, lamp := range lamps {
		becomesSafe(t, lamp)
	}
	if err := k.Keep("lampa", -1, hal.SafeAction{Bytes: []byte("3")}, nil); err != nil {
		t.Errorf("the next agent: got %v, want the vault to answer", err)
	}
}

func TestASafeActionThatFailsIsTriedAgainUntilItSucceedsOnce(t *testing.T) {
	t.Parallel()
	v := NewVault(nil)
	k := keeperOf(t, v, 20*time.Millisecond)
	device, world := fullPipe(t, unix.O_NONBLOCK)
	keep(t, k, "motor", device, "")
	for {
		v.mu.Lock()
		failed := v.kept["motor"].failed != 0
		v.mu.Unlock()
		if failed {
			break
		}
		<-time.After(time.Millisecond)
	}
	got := make([]byte, 1<<21)
	total := ""
	if err := world.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for !strings.HasSuffix(total, "0") {
		n, err := world.Read(got)
		if err != nil {
			t.Fatal(err)
		}
		total = strings.Trim(string(got[:n]), "\x00")
	}
	if err := world.SetReadDeadline(time.Now().Add(1500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := world.Read(got); err == nil {
		t.Errorf("after it succeeded it was done again: got %q", got[:n])
	}
}

func TestAnAgentThatReadsNoListKeepsTheVaultFromNothing(t *testing.T) {
	t.Parallel()
	v, f := NewVault(nil), brightness(t, "7")
	k := keeperOf(t, v, 100*time.Millisecond)
	keep(t, k, "lamp", f, "")
	for i := range maxKept - 1 {
		if err := k.Keep("k"+string(rune('a'+i%26))+strings.Repeat("x", i/26), int(f.Fd()), hal.SafeAction{}, make([]byte, maxKeptNote)); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 { // more than the socket holds
		if err := sendPacket(k.conn, vaultRequest{Seq: 1, Op: "list", Hold: 100 * time.Millisecond}, -1); err != nil {
			break
		}
	}
	becomesSafe(t, f)
}

func TestAVaultIsBounded(t *testing.T) {
	t.Parallel()
	v, f := NewVault(nil), brightness(t, "7")
	k := keeperOf(t, v, time.Hour)
	for name, c := range map[string]struct {
		key, state string
		safe       int
		fd         int
	}{
		"a long key":    {strings.Repeat("k", maxKeptKey+1), "", 1, int(f.Fd())},
		"no key":        {"", "", 1, int(f.Fd())},
		"a long state":  {"lamp", strings.Repeat("s", maxKeptNote+1), 1, int(f.Fd())},
		"a long action": {"lamp", "", maxKeptSafe + 1, int(f.Fd())},
		"no descriptor": {"lamp", "", 1, -1},
	} {
		if err := k.Keep(c.key, c.fd, hal.SafeAction{Bytes: make([]byte, c.safe)}, []byte(c.state)); err == nil {
			t.Errorf("%s was kept", name)
		}
	}
	for i := range maxKept + 1 {
		err := k.Keep("k"+string(rune('a'+i%26))+strings.Repeat("x", i/26), int(f.Fd()), hal.SafeAction{}, nil)
		if (err == nil) != (i < maxKept) {
			t.Fatalf("entry %d: got %v", i, err)
		}
	}
	if _, err := k.ask(vaultRequest{Op: "steal"}, -1, nil); err == nil {
		t.Error("an unknown request was answered")
	}
}
