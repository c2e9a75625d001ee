package container

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// logKeeper holds every FIFO of a directory open: what a module printed stays in
// its pipe although both the module and the agent that would have read it are
// gone. It never reads.
type logKeeper struct {
	dir    string
	log    *slog.Logger
	events *os.File       // inotify
	held   map[string]int // descriptors; not os.Files, whose poller would wake for every line
	done   chan struct{}
}

func newLogKeeper(dir string, log *slog.Logger) (*logKeeper, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init", err)
	}
	k := &logKeeper{
		dir: dir, log: log, events: os.NewFile(uintptr(fd), "inotify"),
		held: map[string]int{}, done: make(chan struct{}),
	}
	const change = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, change); err != nil {
		return nil, errors.Join(os.NewSyscallError("inotify_add_watch", err), k.events.Close())
	}
	k.look()
	go k.run()
	return k, nil
}

// run looks again whenever something changed; what it was does not matter.
func (k *logKeeper) run() {
	defer close(k.done)
	buf := make([]byte, 4096)
	for {
		if _, err := k.events.Read(buf); err != nil {
			return // closed
		}
		k.look()
	}
}

func (k *logKeeper) look() {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		k.log.Warn("log pipes are not kept open", "err", err)
		return
	}
	there := map[string]bool{}
	for _, e := range entries {
		if e.Type() != fs.ModeNamedPipe {
			continue
		}
		there[e.Name()] = true
		if err := k.hold(e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			k.log.Warn("log pipe is not kept open", "pipe", e.Name(), "err", err)
		}
	}
	for name := range k.held {
		if !there[name] {
			k.drop(name)
		}
	}
}

// hold opens a FIFO, unless it is the one already held by that name.
func (k *logKeeper) hold(name string) error {
	path := filepath.Join(k.dir, name)
	if fd, ok := k.held[name]; ok {
		var have, now unix.Stat_t
		if unix.Fstat(fd, &have) == nil && unix.Lstat(path, &now) == nil && have.Dev == now.Dev && have.Ino == now.Ino {
			return nil
		}
		k.drop(name)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	k.held[name] = fd
	return nil
}

func (k *logKeeper) drop(name string) {
	_ = unix.Close(k.held[name])
	delete(k.held, name)
}

func (k *logKeeper) close() {
	_ = k.events.Close()
	<-k.done
	for name := range k.held {
		k.drop(name)
	}
}
