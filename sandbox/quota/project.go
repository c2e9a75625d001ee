package quota

import (
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
	setQuota   = 0x800008<<8 | 2 // QCMD(Q_SETQUOTA, PRJQUOTA)
	blockLimit = 1               // QIF_BLIMITS
	quotaBlock = 1024
)

// setProject puts a directory and all in it into a project, and limits that.
func setProject(dir string, bytes int64, id uint32) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	limit := dqblk{hard: uint64(bytes+quotaBlock-1) / quotaBlock, valid: blockLimit}
	limit.soft = limit.hard
	// First the limit: where that is refused nothing else is changed.
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), setQuota, uintptr(id), uintptr(unsafe.Pointer(&limit)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("quotactl_fd", errno)
	}
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&^fs.ModeDir != 0 { // links and nodes have no such attribute
			return err
		}
		return join(path, id, e.IsDir())
	})
}

// join puts one file into a project. What a module made is not followed.
func join(path string, id uint32, inherit bool) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var attr fsxattr
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getFsxattr, uintptr(unsafe.Pointer(&attr))); errno != 0 {
		return os.NewSyscallError("get project", errno)
	}
	attr.project = id
	if inherit {
		attr.flags |= inheritProject
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), setFsxattr, uintptr(unsafe.Pointer(&attr))); errno != 0 {
		return os.NewSyscallError("set project", errno)
	}
	return nil
}
