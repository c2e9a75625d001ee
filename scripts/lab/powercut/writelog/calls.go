//go:build amd64 || arm64

package writelog

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// enter looks at a call before it runs. It returns what is to be noted when the call returns, or nil when it is of no
// interest.
func (t *tracer) enter(thread int, nr uint64, a [6]uint64) func(int64) {
	switch nr {
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2:
		return t.enterWrite(thread, nr, a)
	case unix.SYS_FTRUNCATE:
		if id, ok := t.descriptor(thread, a[0]); ok {
			return t.add(Op{Kind: Truncate, Object: id, Off: int64(a[1])})
		}
	case unix.SYS_TRUNCATE:
		if id, _, _, ok := t.path(thread, unix.AT_FDCWD, a[0]); ok && id > 0 {
			return t.add(Op{Kind: Truncate, Object: id, Off: int64(a[1])})
		}
	case unix.SYS_FALLOCATE:
		return t.enterAllocate(thread, a)
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		if id, ok := t.descriptor(thread, a[0]); ok {
			return t.add(Op{Kind: Flush, Object: id})
		}
	case unix.SYS_SYNC, unix.SYS_SYNCFS:
		return t.add(Op{Kind: Flush, Object: Everything})
	case unix.SYS_OPENAT:
		return t.enterOpen(thread, a)
	case unix.SYS_MKDIRAT:
		return t.enterMake(thread, a)
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return t.enterRename(thread, nr, a)
	case unix.SYS_UNLINKAT:
		if id, folder, name, ok := t.path(thread, int64(a[0]), a[1]); ok && id >= 0 {
			return t.then(t.add(Op{Kind: Unlink, Object: folder, Name: name}), func() { delete(t.live[folder], name) })
		}
	case unix.SYS_LINKAT:
		if id, _, _, ok := t.path(thread, int64(a[0]), a[1]); ok && id > 0 {
			if _, folder, name, ok := t.path(thread, int64(a[2]), a[3]); ok {
				return t.then(t.add(Op{Kind: Link, Object: folder, Name: name, Target: id}), func() { t.live[folder][name] = id })
			}
		}
	case unix.SYS_MMAP:
		if a[2]&unix.PROT_WRITE != 0 && a[3]&unix.MAP_SHARED != 0 && a[3]&unix.MAP_ANONYMOUS == 0 {
			t.stranger(thread, a[4], "a shared writable mapping")
		}
	case unix.SYS_COPY_FILE_RANGE:
		t.stranger(thread, a[2], "copy_file_range")
	case unix.SYS_SPLICE:
		t.stranger(thread, a[2], "splice")
	case unix.SYS_SENDFILE:
		t.stranger(thread, a[0], "sendfile")
	case unix.SYS_SYMLINKAT:
		if _, _, _, ok := t.path(thread, int64(a[1]), a[2]); ok {
			t.note("a symbolic link is made, which the recorder does not know")
		}
	case unix.SYS_OPENAT2, unix.SYS_IO_URING_SETUP:
		t.note("system call %d is used, which the recorder cannot follow", nr)
	}
	return nil
}

// stranger ends the recording if a call that the recorder cannot follow changes a file of the folder.
func (t *tracer) stranger(thread int, fd uint64, what string) {
	if _, ok := t.descriptor(thread, fd); ok {
		t.note("%s changes a file of the folder, which the recorder cannot follow", what)
	}
}

// add notes an operation, and returns what ends it.
func (t *tracer) add(op Op) func(int64) {
	op.At = t.position
	t.log.Ops = append(t.log.Ops, op)
	i := len(t.log.Ops) - 1
	return func(result int64) {
		op := &t.log.Ops[i]
		if result < 0 {
			*op = Op{Kind: Say, At: op.At} // nothing happened
			return
		}
		if op.Kind == Write {
			op.Data = op.Data[:result]
		}
		op.End = t.position
	}
}

// then adds what the tracer itself notes when the call ends well.
func (t *tracer) then(end func(int64), more func()) func(int64) {
	return func(result int64) {
		end(result)
		if result >= 0 {
			more()
		}
	}
}

// descriptor returns the object that a descriptor stands for, if it is one of the folder's.
func (t *tracer) descriptor(thread int, fd uint64) (int, bool) {
	info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", thread, int32(fd)))
	if err != nil {
		return 0, false
	}
	id, ok := t.inodes[inodeOf(info)]
	return id, ok
}

// path returns what a path stands for: its object (-1: there is none), its folder and its name there. Not ok: it is not
// below the root.
func (t *tracer) path(thread int, fd int64, at uint64) (id, folder int, name string, ok bool) {
	path := t.text(thread, at)
	if !filepath.IsAbs(path) {
		base := fmt.Sprintf("/proc/%d/cwd", thread)
		if int32(fd) != unix.AT_FDCWD {
			base = fmt.Sprintf("/proc/%d/fd/%d", thread, int32(fd))
		}
		to, err := os.Readlink(base)
		if err != nil {
			return 0, 0, "", false
		}
		path = filepath.Join(to, path)
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(real, filepath.Base(path))
	}
	rest, below := strings.CutPrefix(path, t.root+"/")
	if !below {
		return 0, 0, "", false
	}
	parts := strings.Split(rest, "/")
	for _, part := range parts[:len(parts)-1] {
		next, there := t.live[folder][part]
		if !there {
			return 0, 0, "", false
		}
		folder = next
	}
	name = parts[len(parts)-1]
	id, there := t.live[folder][name]
	if !there {
		id = -1
	}
	return id, folder, name, true
}

func (t *tracer) enterWrite(thread int, nr uint64, a [6]uint64) func(int64) {
	data := func() []byte {
		if nr == unix.SYS_WRITE || nr == unix.SYS_PWRITE64 {
			return t.memory(thread, a[1], a[2])
		}
		var all []byte
		vector := t.memory(thread, a[1], a[2]*16)
		for ; len(vector) >= 16; vector = vector[16:] {
			all = append(all, t.memory(thread, binary.NativeEndian.Uint64(vector), binary.NativeEndian.Uint64(vector[8:]))...)
		}
		return all
	}
	if a[0] == 1 && nr == unix.SYS_WRITE {
		t.say(data())
		return nil
	}
	id, ok := t.descriptor(thread, a[0])
	if !ok {
		return nil
	}
	offset := int64(a[3])
	if nr == unix.SYS_WRITE || nr == unix.SYS_WRITEV {
		offset = t.offset(thread, a[0])
	}
	end := t.add(Op{Kind: Write, Object: id, Off: offset, Data: data()})
	if t.fdinfo(thread, a[0], "flags")&(unix.O_DSYNC) == 0 && (nr != unix.SYS_PWRITEV2 || a[5]&(unix.RWF_DSYNC|unix.RWF_SYNC) == 0) {
		return end
	}
	return t.then(end, func() { // the call flushes what it wrote
		t.position++
		flush := t.add(Op{Kind: Flush, Object: id})
		t.position++
		flush(0)
	})
}

// say notes a line on standard output; whoever listens may end the recording there.
func (t *tracer) say(data []byte) {
	t.log.Ops = append(t.log.Ops, Op{Kind: Say, At: t.position, End: t.position, Data: data})
	whole, rest, found := cutLast(t.line + string(data))
	t.line = rest
	if !found || t.cfg.Until == nil {
		return
	}
	for line := range strings.SplitSeq(whole, "\n") {
		t.stop = t.stop || t.cfg.Until(line)
	}
}

// offset is where the next write of a descriptor goes.
func (t *tracer) offset(thread int, fd uint64) int64 {
	if t.fdinfo(thread, fd, "flags")&unix.O_APPEND != 0 {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", thread, int32(fd)))
		if err != nil {
			t.note("size of a file: %w", err)
			return 0
		}
		return info.Size()
	}
	return t.fdinfo(thread, fd, "pos")
}

// fdinfo reads a number of /proc/PID/fdinfo/FD.
func (t *tracer) fdinfo(thread int, fd uint64, field string) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", thread, int32(fd)))
	if err != nil {
		t.note("read fdinfo: %w", err)
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if value, is := strings.CutPrefix(line, field+":"); is {
			var n int64
			form := "%d"
			if field == "flags" {
				form = "%o"
			}
			_, _ = fmt.Sscanf(strings.TrimSpace(value), form, &n)
			return n
		}
	}
	return 0
}

func (t *tracer) enterAllocate(thread int, a [6]uint64) func(int64) {
	id, ok := t.descriptor(thread, a[0])
	if !ok {
		return nil
	}
	const zeroing = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	switch mode := a[1]; {
	case mode == 0:
		return t.add(Op{Kind: Grow, Object: id, Off: int64(a[2] + a[3])})
	case mode == unix.FALLOC_FL_KEEP_SIZE:
		return nil
	case mode&zeroing != 0 && mode&unix.FALLOC_FL_KEEP_SIZE != 0:
		info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", thread, int32(a[0])))
		if err != nil {
			t.note("size of a file: %w", err)
			return nil
		}
		n := max(0, min(int64(a[3]), info.Size()-int64(a[2])))
		end := t.add(Op{Kind: Write, Object: id, Off: int64(a[2]), Data: make([]byte, n)})
		return func(result int64) { end(min(result, 0) + max(result+1, 0)*n) } // it returns 0, a write its length
	}
	t.note("fallocate with mode %#x, which the recorder does not know", a[1])
	return nil
}

func (t *tracer) enterOpen(thread int, a [6]uint64) func(int64) {
	if a[2]&(unix.O_CREAT|unix.O_TRUNC) == 0 {
		return nil
	}
	id, folder, name, ok := t.path(thread, int64(a[0]), a[1])
	if !ok {
		return nil
	}
	if id >= 0 {
		if a[2]&unix.O_TRUNC == 0 {
			return nil
		}
		return t.add(Op{Kind: Truncate, Object: id})
	}
	if a[2]&unix.O_CREAT == 0 {
		return nil
	}
	end := t.add(Op{Kind: Link, Object: folder, Name: name})
	return t.made(end, folder, name, func(fd int64) (os.FileInfo, error) { return os.Stat(fmt.Sprintf("/proc/%d/fd/%d", thread, fd)) })
}

func (t *tracer) enterMake(thread int, a [6]uint64) func(int64) {
	_, folder, name, ok := t.path(thread, int64(a[0]), a[1])
	if !ok {
		return nil
	}
	where := t.text(thread, a[1])
	end := t.add(Op{Kind: Link, Object: folder, Name: name})
	return t.made(end, folder, name, func(int64) (os.FileInfo, error) {
		if !filepath.IsAbs(where) {
			return nil, fmt.Errorf("mkdir of the relative path %s, which the recorder does not know", where)
		}
		return os.Lstat(where)
	})
}

// made notes what a call has made.
func (t *tracer) made(end func(int64), folder int, name string, stat func(int64) (os.FileInfo, error)) func(int64) {
	i := len(t.log.Ops) - 1
	return t.thenWith(end, func(result int64) {
		info, err := stat(result)
		if err != nil {
			t.note("look at a new file: %w", err)
			return
		}
		id := t.object(info)
		t.live = append(t.live, map[string]int{})
		t.live[folder][name] = id
		t.log.Ops[i].Target = id
	})
}

func (t *tracer) thenWith(end, more func(int64)) func(int64) {
	return func(result int64) {
		end(result)
		if result >= 0 {
			more(result)
		}
	}
}

func (t *tracer) enterRename(thread int, nr uint64, a [6]uint64) func(int64) {
	id, from, fromName, in := t.path(thread, int64(a[0]), a[1])
	_, folder, name, into := t.path(thread, int64(a[2]), a[3])
	if !in && !into {
		return nil
	}
	if !in || !into || nr == unix.SYS_RENAMEAT2 && a[4]&^unix.RENAME_NOREPLACE != 0 {
		t.note("a rename into the folder, out of it, or that exchanges: the recorder does not know it")
		return nil
	}
	op := Op{Kind: Rename, Object: folder, Name: name, From: from, FromName: fromName}
	return t.then(t.add(op), func() {
		delete(t.live[from], fromName)
		t.live[folder][name] = id
	})
}
