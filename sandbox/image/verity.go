package image

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// fs-verity (Documentation/filesystems/fsverity.rst): a file of a file system that has it can be sealed for good. From then on nobody can
// write to it, the kernel holds every block that is read against a tree of digests, and says at once what the whole file's digest is.
// An image is sealed after it was checked for its first mount; its later mounts ask for the digest alone.

// verityBlocks is the block size, in bytes, by which manifests name an image's digest; it has no salt.
const verityBlocks = 4096

// enableVerity is struct fsverity_enable_arg.
type enableVerity struct {
	version, algorithm, blockSize, saltSize uint32
	salt                                    uint64
	signatureSize, _                        uint32
	signature                               uint64
	_                                       [11]uint64
}

// sealByVerity asks the kernel to guard a file that nobody has open for writing.
func sealByVerity(f *os.File) error {
	arg := enableVerity{version: 1, algorithm: unix.FS_VERITY_HASH_ALG_SHA256, blockSize: verityBlocks}
	return ioctl(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
}

// sealed is the digest by which the kernel guards a file, if it does.
func sealed(f *os.File) (d bundle.Digest, ok bool) {
	arg := struct { // struct fsverity_digest
		algorithm, size uint16
		digest          [64]byte
	}{size: 64}
	if err := ioctl(f, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&arg)); err != nil || arg.algorithm != unix.FS_VERITY_HASH_ALG_SHA256 || int(arg.size) != len(d) {
		return d, false
	}
	copy(d[:], arg.digest[:])
	return d, true
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

// guarded tells whether the kernel guards f, and as the image that it should be: then it need not be read.
func (s *Store) guarded(f *os.File, info bundle.ImageInfo) bool {
	d, ok := sealed(f)
	size, err := f.Stat()
	return ok && d == info.Verity && err == nil && size.Size() == int64(info.Size)
}

// guard seals an image that was just checked. A file system without fs-verity is no error, then the image is checked at each mount; nor is
// one that is full, or a program that was just forked and still has the file open: the next mount tries again.
func (s *Store) guard(f *os.File, info bundle.ImageInfo) error {
	if err := s.step("seal by verity"); err != nil {
		return nil //nolint:nilerr // as if the kernel had refused
	}
	switch err := sealByVerity(f); {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return nil
	case err != nil:
		s.cfg.Logger.Info("image is not sealed by fs-verity this time", "image", info.Digest.String(), "err", err)
		return nil
	}
	if !s.guarded(f, info) {
		return bundle.Reject(bundle.ErrDigest, "the image was changed between its check and its sealing: find out who can write to %s", s.blobs())
	}
	return nil
}

// unwritable tells whether the kernel guards an installed image's file.
func (s *Store) unwritable(image bundle.Digest) bool {
	f, err := openSealed(s.imagePath(image))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	_, ok := sealed(f)
	return ok
}
