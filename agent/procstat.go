package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// userHertz is the unit of times in /proc, 100 per second on every Linux that Go supports.
const userHertz = 100

// processAge is how long ago the kernel made a process, suspended time included. Nobody can set that clock.
func processAge(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	ticks, err := startTicks(raw)
	if err != nil {
		return 0, err
	}
	return max(kernelUptime()-time.Duration(ticks)*(time.Second/userHertz), 0), nil
}

// startTicks reads field 22 of /proc/PID/stat: the start of the process after boot, in clock ticks (proc_pid_stat(5)).
func startTicks(stat []byte) (uint64, error) {
	end := bytes.LastIndexByte(stat, ')') // the second field may hold anything, blanks too
	if end < 0 {
		return 0, errors.New("stat: no process name")
	}
	fields := bytes.Fields(stat[end+1:])
	const startTime = 22 - 3 // the third field is the first one here
	if len(fields) <= startTime {
		return 0, errors.New("stat: too few fields")
	}
	return strconv.ParseUint(string(fields[startTime]), 10, 64)
}
