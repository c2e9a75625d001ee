package container

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// strayTime is how long a child may have ended without that it is waited for, before it is taken for one that nobody knows of.
const strayTime = time.Second

// reapStrays waits for what a command left behind that was about to enter a sandbox when that ended. Such a child is ours, libcontainer was
// not told of it yet, and until it is waited for the kernel does not end the first process of the pid namespace that it is in: nothing
// would see the sandbox's end. It returns at once and works until strayTime is over twice.
func reapStrays() {
	time.AfterFunc(strayTime/4, func() {
		seen := strays()
		if len(seen) == 0 {
			return
		}
		time.AfterFunc(strayTime, func() {
			for pid, start := range strays() {
				if was, lay := seen[pid]; lay && was == start {
					_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // somebody may have waited for it meanwhile
				}
			}
		})
	})
}

// strays are children of this process that ended in a pid namespace below ours, but for first processes of one, by pid with their start.
func strays() map[int]uint64 {
	self, list := os.Getpid(), map[int]uint64{}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // those that were read count
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + name + "/status")
		if err != nil || !strayStatus(string(text), self) {
			continue
		}
		if st, err := readStat(pid); err == nil {
			list[pid] = st.start
		}
	}
	return list
}

// strayStatus says whether the text of /proc/PID/status is that of a stray of a parent.
func strayStatus(text string, parent int) bool {
	found := 0
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case key == "State" && len(f) > 0 && f[0] == "Z",
			key == "PPid" && len(f) > 0 && f[0] == strconv.Itoa(parent),
			key == "NSpid" && len(f) > 1 && f[len(f)-1] != "1":
			found++
		}
	}
	return found == 3
}
