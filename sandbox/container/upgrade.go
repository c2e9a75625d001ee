package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// How long an agent from another file than before is on trial, how often it may die in
// that time before the one before is put back, and how long it may take to be well.
const (
	trialTime   = 30 * time.Second
	trialDeaths = 3
	trialHang   = 2 * time.Minute
)

// binaries are the files the warden starts agents from. The one that has proved
// itself is held open: it can be started, and put back, although an update has
// taken its name away.
type binaries struct {
	cfg     *WardenConfig
	good    *os.File
	goodID  fileID
	refused fileID // it died on trial: not started again
	path    string // of what was started last
	id      fileID // of it
	deaths  int    // of it, on trial
}

// fileID tells two files apart, and one that was written over.
type fileID struct {
	dev, ino    uint64
	size, mtime int64
}

func identify(path string) (fileID, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return fileID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileID{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano()}, nil //nolint:unconvert // narrower on other platforms
}

// openBinaries begins with the file this process runs from.
func openBinaries(cfg *WardenConfig) (*binaries, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	id, err := identify("/proc/self/exe")
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &binaries{cfg: cfg, good: f, goodID: id}, nil
}

func (b *binaries) close() { _ = b.good.Close() } // only read

// next says what to start.
func (b *binaries) next() string {
	path := b.cfg.Binary()
	id, err := identify(path)
	if err != nil || id == b.refused {
		path, id = fmt.Sprintf("/proc/self/fd/%d", b.good.Fd()), b.goodID
	}
	if id != b.id {
		b.deaths = 0
	}
	b.path, b.id = path, id
	return path
}

// onTrial tells whether what was started last has yet to prove itself.
func (b *binaries) onTrial() bool { return b.id != b.goodID }

// proven keeps what was started last as the one that is good.
func (b *binaries) proven() {
	if !b.onTrial() {
		return
	}
	f, err := os.Open(b.path)
	if err != nil {
		b.cfg.Logger.Warn("new agent cannot be kept for a later return", "err", err)
		return
	}
	if id, err := identify(b.path); err != nil || id != b.id { // replaced again meanwhile
		_ = f.Close()
		return
	}
	_ = b.good.Close() // only read
	b.good, b.goodID, b.deaths = f, b.id, 0
	b.cfg.Logger.Info("new agent has proved itself", "after", b.cfg.Trial)
}

// died takes the death of an agent on trial into account. True: it is refused,
// and the one before is in its place.
func (b *binaries) died(after time.Duration, hopeless bool) bool {
	if !b.onTrial() || after >= b.cfg.Trial && !hopeless {
		return false
	}
	if b.deaths++; b.deaths < b.cfg.Deaths && !hopeless {
		return false
	}
	b.refused = b.id
	err := b.putBack(b.path)
	b.cfg.Logger.Error("new agent does not live, the one before takes its place", "deaths", b.deaths, "after", after, "put_back", err == nil, "err", err)
	return true
}

// putBack writes the good file over path in one step. A read-only system keeps
// what it has: the good one runs from memory then.
func (b *binaries) putBack(path string) (err error) {
	if now, err := identify(path); err != nil || now != b.refused {
		return errors.Join(err, errors.New("the file was replaced meanwhile"))
	}
	tmp := path + ".back"
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	st, err := b.good.Stat()
	if err == nil {
		_, err = io.Copy(out, io.NewSectionReader(b.good, 0, st.Size()))
	}
	if err == nil {
		err = out.Chmod(st.Mode().Perm())
	}
	if err == nil {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = errors.Join(dir.Sync(), dir.Close())
	if id, stat := identify(path); stat == nil {
		b.goodID = id // the same bytes, in another file
	}
	return err
}
