package container

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStatOfThisProcess(t *testing.T) {
	t.Parallel()
	st, err := readStat(os.Getpid())
	if err != nil || st.start == 0 {
		t.Errorf("got %+v, %v, want a start time", st, err)
	}
	if again, err := readStat(os.Getpid()); err != nil || again.start != st.start {
		t.Errorf("got %+v, %v, want start %d", again, err, st.start)
	}
}

func FuzzParseStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("1 (a) b) (c) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 12345 1 1"))
	f.Add([]byte("1 (a"))
	f.Fuzz(func(t *testing.T, line []byte) {
		st, err := parseStat(line)
		if err != nil && st != (procStat{}) {
			t.Errorf("got %+v beside %v", st, err)
		}
	})
}

func TestPeekTellsHowAChildEndedAndLeavesIt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		want   syscall.WaitStatus
	}{
		"an exit code":  {"exit 7", 7 << 8},
		"a large code":  {"exit 255", 255 << 8},
		"a signal":      {"kill -9 $$", 9},
		"another":       {"kill -TERM $$", 15},
		"a code of 0":   {"exit 0", 0},
		"a code of 128": {"exit 128", 128 << 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", tt.script)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			st, err := readStat(cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			p, err := openPidfd(cmd.Process.Pid, st.start)
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			if err := p.waitEnd(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // it can be asked again
				got, ok, err := peekChild(unix.P_PID, cmd.Process.Pid)
				if err != nil || !ok || got.pid != cmd.Process.Pid || got.status != tt.want {
					t.Errorf("got %+v, %v, %v, want status %#x", got, ok, err, tt.want)
				}
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.Sys(); got != tt.want {
				t.Errorf("wait: got %#x, want %#x", got, tt.want)
			}
			if status, ok := p.exitStatus(); hasExitInfo() && (!ok || status != tt.want) {
				t.Errorf("pidfd: got %#x, %v, want %#x", status, ok, tt.want)
			}
		})
	}
}

func TestPidfdIsNotFooledByAReusedPid(t *testing.T) {
	t.Parallel()
	if p, err := openPidfd(os.Getpid(), 1); err == nil {
		p.close()
		t.Error("a process with another start time was taken for the one wanted")
	}
}

func TestKernelReleases(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]bool{
		"6.15.0": true, "6.18.44-fc": true, "7.0-rc1": true, "6.14.9": false, "5.19": false, "6": false, "": false, "x": false,
	} {
		if got := atLeast(release, 6, 15); got != want {
			t.Errorf("%q: got %v, want %v", release, got, want)
		}
	}
}

func TestAStrayIsAnEndedChildOfOursInANamespaceBelow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"a stray":              {"Name:\trunc:[2:INIT]\nState:\tZ (zombie)\nPPid:\t7\nNSpid:\t90\t12\n", true},
		"one that lives":       {"State:\tS (sleeping)\nPPid:\t7\nNSpid:\t90\t12\n", false},
		"another's child":      {"State:\tZ (zombie)\nPPid:\t70\nNSpid:\t90\t12\n", false},
		"of our own namespace": {"State:\tZ (zombie)\nPPid:\t7\nNSpid:\t90\n", false},
		"the first process":    {"State:\tZ (zombie)\nPPid:\t7\nNSpid:\t90\t1\n", false},
		"no text":              {"", false},
		"a cut text":           {"State:\nPPid\nNSpid:", false},
	} {
		if got := strayStatus(c.text, 7); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
