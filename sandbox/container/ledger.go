package container

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Ledger is the warden's file of ended processes: a line each, "pid start
// status", in decimal; start is the kernel's start time in clock ticks, which
// tells two owners of one pid apart, and status is that of wait(2). The warden
// alone writes; agents read.
type Ledger struct{ path string }

// OpenLedger names the ledger in the runtime directory. The file need not exist.
func OpenLedger(runDir string) *Ledger { return &Ledger{filepath.Join(runDir, "exits")} }

// maxLedger is the size in bytes at which the older half is dropped: more than a
// thousand exits, which an agent that lives reads at once.
const maxLedger = 32 << 10

// record is one line.
type record struct {
	pid    int
	start  uint64
	status syscall.WaitStatus
}

func (r record) String() string {
	return fmt.Sprintf("%d %d %d\n", r.pid, r.start, uint32(r.status))
}

func parseRecord(line string) (record, error) {
	f := strings.Split(line, " ")
	if len(f) != 3 {
		return record{}, fmt.Errorf("exit record %q: not three numbers", line)
	}
	pid, err := strconv.ParseInt(f[0], 10, 32)
	if err != nil || pid <= 0 {
		return record{}, fmt.Errorf("exit record %q: pid", line)
	}
	start, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		return record{}, fmt.Errorf("exit record %q: start time", line)
	}
	status, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil {
		return record{}, fmt.Errorf("exit record %q: status", line)
	}
	return record{int(pid), start, syscall.WaitStatus(status)}, nil
}

// append writes one line at the end, in one write.
func (l *Ledger) append(r record) error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(r.String())
	st, serr := f.Stat()
	if err := errors.Join(err, serr, f.Close()); err != nil {
		return err
	}
	if st.Size() > maxLedger {
		return l.halve()
	}
	return nil
}

// halve drops the older half of the lines.
func (l *Ledger) halve() error {
	b, err := os.ReadFile(l.path)
	if err != nil {
		return err
	}
	b = b[len(b)/2:]
	b = b[bytes.IndexByte(b, '\n')+1:]
	tmp := l.path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, l.path)
}

// Find returns how the process with that pid and start time ended, if it is in
// the ledger. Lines that make no sense are passed over.
func (l *Ledger) Find(pid int, start uint64) (syscall.WaitStatus, bool) {
	b, err := os.ReadFile(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		r, err := parseRecord(strings.TrimSuffix(line, "\n"))
		if err == nil && r.pid == pid && r.start == start {
			return r.status, true
		}
	}
	return 0, false
}
