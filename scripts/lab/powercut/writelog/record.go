//go:build amd64 || arm64

package writelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Config of Record.
type Config struct {
	Dir     string                 // the folder; it exists
	Command []string               // program and arguments; the program calls [Trace] before it touches Dir
	Env     []string               // as in os/exec; nil is this process's own
	Until   func(line string) bool // called with every line on standard output; true kills the process there. Default: never
}

// Record runs a command until it ends, Until says so, or ctx does, and returns what it did to the folder. The process and
// all that it started are gone when Record returns. ErrNoTrace: this system lets nobody trace.
func Record(ctx context.Context, cfg Config) (*Log, error) {
	root, err := filepath.EvalSymlinks(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	t := &tracer{cfg: cfg, root: root, log: &Log{}, inodes: map[inode]int{}, leave: map[int]func(int64){}, seen: map[int]bool{}}
	if _, err := t.take(root); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	for i := range t.log.Objects { // the log keeps the folder as it was; live goes on
		t.live = append(t.live, cloneEntries(t.log.Objects[i].Entries))
	}
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // a tracer is a thread; it ends with this goroutine, and whatever it still traced with it
		ended <- t.run(ctx)
	}()
	if err := <-ended; err != nil {
		return nil, fmt.Errorf("record %s: %w", filepath.Base(cfg.Command[0]), err)
	}
	t.log.Length = t.position + 1
	return t.log, ctx.Err()
}

// ErrNoTrace says that the system does not let a process trace its own child.
var ErrNoTrace = errors.New("this system lets nobody trace a process")

type inode struct{ device, number uint64 }

type tracer struct {
	cfg      Config
	root     string
	log      *Log
	live     []map[string]int // entries of each object, as they are now
	inodes   map[inode]int    // object
	position int
	leave    map[int]func(result int64) // by thread: what to note when its call returns
	seen     map[int]bool               // threads whose first stop is over
	line     string                     // of standard output, so far
	pid      int
	stop     bool
	trouble  error
}

// take notes what is in a folder before anything happens.
func (t *tracer) take(path string) (int, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	id := t.object(info)
	if !info.IsDir() {
		data, err := os.ReadFile(path)
		t.log.Objects[id].Data = data
		return id, err
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		child, err := t.take(filepath.Join(path, e.Name()))
		if err != nil {
			return 0, err
		}
		t.log.Objects[id].Entries[e.Name()] = child
	}
	return id, nil
}

// object makes an object of a new inode.
func (t *tracer) object(info os.FileInfo) int {
	id := len(t.log.Objects)
	o := Object{Mode: info.Mode()}
	if info.IsDir() {
		o.Entries = map[string]int{}
	}
	t.log.Objects = append(t.log.Objects, o)
	t.inodes[inodeOf(info)] = id
	return id
}

func inodeOf(info os.FileInfo) inode {
	st := info.Sys().(*syscall.Stat_t)
	return inode{st.Dev, st.Ino}
}

func cloneEntries(m map[string]int) map[string]int {
	c := map[string]int{}
	for name, id := range m {
		c[name] = id
	}
	return c
}

// run starts the process and follows it to its end.
func (t *tracer) run(ctx context.Context) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	env := t.cfg.Env
	if env == nil {
		env = os.Environ()
	}
	t.pid, err = syscall.ForkExec(t.cfg.Command[0], t.cfg.Command, &syscall.ProcAttr{
		Env: env, Files: []uintptr{null.Fd(), null.Fd(), 2}, Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) {
		return fmt.Errorf("%w: %w", ErrNoTrace, err)
	}
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, t.kill)()
	return t.follow()
}

func (t *tracer) kill() {
	_ = syscall.Kill(-t.pid, syscall.SIGKILL) // its group, which is nobody else's
}

// follow handles every stop until no traced thread is left.
func (t *tracer) follow() error {
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
		unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_EXITKILL
	started := false
	for {
		var status syscall.WaitStatus
		thread, err := syscall.Wait4(-t.pid, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD):
			return t.trouble
		case err != nil:
			t.kill()
			return err
		}
		if !status.Stopped() { // this one has ended
			if thread == t.pid && !t.stop && t.trouble == nil && (status.Signaled() || status.ExitStatus() != 0) {
				t.trouble = fmt.Errorf("it ended with %v, signal %v", status.ExitStatus(), status.Signal())
			}
			continue
		}
		if !started {
			if err := syscall.PtraceSetOptions(thread, options); err != nil {
				t.kill()
				return fmt.Errorf("%w: %w", ErrNoTrace, err)
			}
			started = true
			t.seen[thread] = true
			_ = syscall.PtraceCont(thread, 0)
			continue
		}
		t.stopped(thread, status)
		if (t.stop || t.trouble != nil) && started {
			t.kill()
		}
	}
}

// stopped looks at one stop and lets the thread go on. A thread that is gone meanwhile is not worth a word.
func (t *tracer) stopped(thread int, status syscall.WaitStatus) {
	signal := status.StopSignal()
	switch {
	case signal == syscall.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		if t.stop || t.trouble != nil {
			return // it ends before it does anything more
		}
		info, err := syscallInfo(thread)
		if err != nil {
			return
		}
		t.position++
		nr, args := modern(info.nr, info.args)
		if after := t.enter(thread, nr, args); after != nil {
			t.leave[thread] = after
			_ = syscall.PtraceSyscall(thread, 0)
			return
		}
		if !t.stop {
			_ = syscall.PtraceCont(thread, 0)
		}
	case signal == syscall.SIGTRAP|0x80: // a call returns
		if after := t.leave[thread]; after != nil {
			delete(t.leave, thread)
			info, err := syscallInfo(thread)
			if err != nil {
				return
			}
			t.position++
			after(int64(info.nr)) // where a return has its value
		}
		_ = syscall.PtraceCont(thread, 0)
	case signal == syscall.SIGTRAP && status.TrapCause() > 0: // clone, fork, exec
		_ = syscall.PtraceCont(thread, 0)
	case signal == syscall.SIGSTOP && !t.seen[thread]:
		t.seen[thread] = true
		_ = syscall.PtraceCont(thread, 0)
	default:
		_ = syscall.PtraceCont(thread, int(signal))
	}
}

// info is struct ptrace_syscall_info of linux/ptrace.h, as far as it is used.
type info struct {
	op   uint8
	_    [3]uint8
	_    uint32
	_, _ uint64
	nr   uint64 // or what the call returned
	args [6]uint64
	_    uint64
}

func syscallInfo(thread int) (*info, error) {
	var i info
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread), unsafe.Sizeof(i), uintptr(unsafe.Pointer(&i)), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return &i, nil
}

// memory reads the traced process.
func (t *tracer) memory(thread int, at, size uint64) []byte {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", thread))
	if err != nil {
		t.note("read memory: %w", err)
		return nil
	}
	defer f.Close()
	data := make([]byte, size)
	if _, err := f.ReadAt(data, int64(at)); err != nil {
		t.note("read memory: %w", err)
	}
	return data
}

// text reads a string of C.
func (t *tracer) text(thread int, at uint64) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", thread))
	if err != nil {
		t.note("read memory: %w", err)
		return ""
	}
	defer f.Close()
	data := make([]byte, unix.PathMax)
	n, _ := f.ReadAt(data, int64(at)) // it may end with a mapping
	s, _, _ := strings.Cut(string(data[:n]), "\x00")
	return s
}

// note keeps the first thing that makes the recording worthless.
func (t *tracer) note(format string, args ...any) {
	if t.trouble == nil {
		t.trouble = fmt.Errorf(format, args...)
	}
}
