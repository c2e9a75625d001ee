package agent

import (
	"bytes"
	"errors"
	"strconv"
)

// startTicks reads field 22 of /proc/self/stat: the start of the process after boot, in clock ticks (proc_pid_stat(5)).
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
