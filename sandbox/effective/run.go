package effective

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Finding is what came of one probe.
type Finding struct {
	Probe   string `json:"probe"`   // what was tried: "mount a file system"
	Allowed bool   `json:"allowed"` // it would have worked
	Detail  string `json:"detail"`  // the error's name, or what was found
}

// probe is one attempt. try returns nil or a found for what works.
type probe struct {
	name string
	try  func() error
}

// found is something that a probe came upon, in words; it counts as allowed.
type found string

func (f found) Error() string { return string(f) }

// errNone says that a probe looked for something and there is none.
var errNone = errors.New("errNone")

// refused are the errors that mean a wall: not permitted, not writable, not
// there, not known.
var refused = map[syscall.Errno]bool{
	unix.EPERM: true, unix.EACCES: true, unix.EROFS: true, unix.ENOENT: true, unix.ENOTDIR: true, unix.ENOSYS: true, unix.ENODEV: true, unix.ENXIO: true,
	unix.EAFNOSUPPORT: true, unix.EPROTONOSUPPORT: true, unix.ESOCKTNOSUPPORT: true, unix.EOPNOTSUPP: true,
}

// Run tries everything, in the order of the list.
func Run() []Finding {
	var all []Finding
	for _, list := range [][]probe{mounts(), namespaces(), processes(), kernel(), sockets(), files(), identity()} {
		for _, p := range list {
			all = append(all, p.run())
		}
	}
	return all
}

// run makes the attempt on a thread that is thrown away with its goroutine.
func (p probe) run() Finding {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		_ = unix.Unshare(unix.CLONE_FS)
		done <- p.try()
	}()
	err := <-done
	f := Finding{Probe: p.name, Allowed: true, Detail: "allowed"}
	var errno syscall.Errno
	var what found
	switch {
	case err == nil:
	case errors.As(err, &what):
		f.Detail = string(what)
	case errors.As(err, &errno):
		f.Allowed, f.Detail = !refused[errno], unix.ErrnoName(errno)
	default:
		f.Allowed, f.Detail = false, err.Error()
	}
	return f
}

// maxFindings bounds what is read from a probe process, in bytes: it runs where
// the module does.
const maxFindings = 64 << 10

// Parse reads what [Run] made, as JSON, from a process inside a sandbox. A list
// that is not complete is an error: a missing finding must not pass for a wall.
func Parse(r io.Reader) ([]Finding, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxFindings+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxFindings {
		return nil, fmt.Errorf("findings: more than %d bytes", maxFindings)
	}
	var all []Finding
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("findings: %w", err)
	}
	names := Names()
	if len(all) != len(names) {
		return nil, fmt.Errorf("findings: got %d, want %d", len(all), len(names))
	}
	for n, f := range all {
		if f.Probe != names[n] {
			return nil, fmt.Errorf("findings: number %d is %q, want %q", n, f.Probe, names[n])
		}
	}
	return all, nil
}

// Names lists the probes.
func Names() []string {
	var names []string
	for _, list := range [][]probe{mounts(), namespaces(), processes(), kernel(), sockets(), files(), identity()} {
		for _, p := range list {
			names = append(names, p.name)
		}
	}
	return names
}
