package container_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox"
	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

func TestCallsThatNoModuleHasAUseForAreRefusedAndCounted(t *testing.T) {
	t.Parallel()
	dir := newStateDir(t)
	r := openRuntime(t, dir)
	if !r.Probe().Seccomp {
		t.Skip("SKIPPED FOR LACK OF SECCOMP: " + announce(r))
	}
	s := spec(t, "mounter")
	s.Args = []string{"/bin/bash", "-c", `for n in 1 2 3; do umount /tmp 2>&1 | grep -c -i -e permitted -e permission -e superuser; done; sleep 1000`}
	i := start(t, r, s)
	for n := range 3 {
		if got := i.line(); got != "1" {
			t.Errorf("umount %d: got %s, want it refused", n, got)
		}
	}
	refuser, ok := i.Instance.(sandbox.Refuser)
	if !ok {
		t.Fatal("it does not tell what is refused")
	}
	if got := refuser.Refused().Calls; got < 3 {
		t.Errorf("got %d calls, want at least 3", got)
	}
}

// TestACallAfterTheAgentIsRefusedAllTheSame: nobody answers any more.
func TestACallAfterTheAgentIsRefusedAllTheSame(t *testing.T) {
	t.Parallel()
	h := newHousehold(t, `trap 'umount /tmp 2>/dev/null && echo escaped || echo refused' USR1; echo ready; while :; do sleep 0.05; done`)
	first := h.next("started")
	log := h.log()
	expect := func(want string) {
		t.Helper()
		if line, err := log.ReadString('\n'); err != nil || line != want+"\n" {
			t.Fatalf("got %q, %v, want %s", line, err, want)
		}
	}
	expect("ready")
	h.kill(first[1], syscall.SIGUSR1)
	expect("refused")
	h.kill(first[0], syscall.SIGKILL)
	h.next("recovered")
	h.kill(first[1], syscall.SIGUSR1)
	expect("refused")
}

func TestWhatIsUsedUpIsTold(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	for name, c := range map[string]struct {
		script string
		want   sandbox.Exhaustion
	}{
		"nothing":             {`echo ready; sleep 1000`, sandbox.Exhaustion{}},
		"its files":           {`mkfifo /tmp/f; exec 3<>/tmp/f; for n in {4..9} {11..39}; do eval "exec $n</dev/null"; done; echo ready; read -r -u 3 _`, sandbox.Exhaustion{Files: true}},
		"its place in memory": {`cat /dev/zero > /tmp/full 2>/dev/null; echo ready; sleep 1000`, sandbox.Exhaustion{Full: []string{"/tmp"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec(t, "user-"+strings.ReplaceAll(name, " ", "-"))
			s.Limits.Files, s.Limits.Tmp = 40, 1<<20
			s.Args = []string{"/bin/bash", "-c", c.script}
			i := start(t, r, s)
			if got := i.line(); got != "ready" {
				t.Fatalf("got %q", got)
			}
			got := i.Instance.(sandbox.Exhauster).Exhausted()
			if got.Files != c.want.Files || !slices.Equal(got.Full, c.want.Full) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

var _ sandbox.Exhauster = (*container.Instance)(nil)
