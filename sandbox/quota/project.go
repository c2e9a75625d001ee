package quota

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	flags, extsize, extents, project, cowextsize uint32
	_                                            [8]byte
}

const (
	getFsxattr     = 0x801c581f // FS_IOC_FSGETXATTR
	setFsxattr     = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritProject = 0x200      // FS_XFLAG_PROJINHERIT
)

// dqblk is struct if_dqblk of linux/quota.h; blocks are of 1024 bytes.
type dqblk struct {
	hard, soft, space, inodesHard, inodesSoft, inodes, blockTime, inodeTime uint64
	valid                                                                   uint32
	_                                                                       uint32
}

const (
	setQuota   = 0x800008<<8 | 2    // QCMD(Q_SETQUOTA, PRJQUOTA)
	getState   = 'X'<<16 | 5<<8 | 2 // QCMD(Q_XGETQSTAT, PRJQUOTA)
	limits     = 1 | 4              // QIF_BLIMITS, QIF_ILIMITS
	quotaBlock = 1024
	enforced   = 1 << 5 // FS_QUOTA_PDQ_ENFD of linux/dqblk_xfs.h
)

// perFile is how many bytes of a bound there are for each file: what mkfs.ext4 reckons for a small disk. Without a bound on their number a
// module could take every inode of the partition with empty files, which hold no bytes.
const (
	perFile  = 4096
	minFiles = 256
)

// errLenient says that the file system counts and does not refuse.
var errLenient = errors.New("the file system counts projects and enforces no limit; mount it with prjquota")

// setProject puts a directory and all in it into a project, and limits that.
func setProject(dir string, bytes int64, id uint32) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	// First the limit: where that is refused nothing else is changed.
	limit := dqblk{hard: uint64(bytes+quotaBlock-1) / quotaBlock, inodesHard: uint64(max(bytes/perFile, minFiles)), valid: limits}
	limit.soft, limit.inodesSoft = limit.hard, limit.inodesHard
	if err := quotactl(f, setQuota, id, unsafe.Pointer(&limit)); err != nil {
		return err
	}
	// ext4 with the feature and without the mount option takes a limit and holds nobody to it.
	var state struct { // struct fs_quota_stat, of which the flags are read
		version int8
		flags   uint16
		_       [124]byte
	}
	if err := quotactl(f, getState, 0, unsafe.Pointer(&state)); err != nil {
		return err
	}
	if state.flags&enforced == 0 {
		return errLenient
	}
	return join(dir, id, 0)
}

func quotactl(f *os.File, command uintptr, id uint32, value unsafe.Pointer) error {
	if _, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), command, uintptr(id), uintptr(value), 0, 0); errno != 0 {
		return os.NewSyscallError("quotactl_fd", errno)
	}
	return nil
}

// Bounds of a walk through what a module made: entries read at once, and folders within each other, of which each costs a descriptor.
const (
	atOnce   = 256
	maxDepth = 128
)

// join puts a file, or a directory and all in it, into a project; a directory last, so that one which has it is known to hold nothing else: what is
// made in it inherits, and nothing of another project can be moved into it. What a module made is not followed.
func join(path string, id uint32, depth int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	want := fsxattr{project: id}
	if info.IsDir() {
		want.flags = inheritProject
	}
	var attr fsxattr
	if err := ioctl(f, getFsxattr, &attr); err != nil {
		return fmt.Errorf("project of %s: %w", path, err)
	}
	if attr.project == id && attr.flags&inheritProject == want.flags {
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories within each other", path, maxDepth)
	}
	for info.IsDir() {
		entries, err := f.ReadDir(atOnce)
		for _, e := range entries {
			if e.Type()&^fs.ModeDir != 0 { // links and nodes have no such attribute
				continue
			}
			if err := join(filepath.Join(path, e.Name()), id, depth+1); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	attr.project = id
	attr.flags |= want.flags
	if err := ioctl(f, setFsxattr, &attr); err != nil {
		return fmt.Errorf("set project of %s: %w", path, err)
	}
	return nil
}

func ioctl(f *os.File, command uintptr, attr *fsxattr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(unsafe.Pointer(attr))); errno != 0 {
		return errno
	}
	return nil
}
