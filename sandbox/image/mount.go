package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/loop"
)

// mountFlags of every image. Executables run, nothing else does: no device, no setuid, no write.
const mountFlags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID

const (
	pointMode   = 0o711 // a module's first process, already without privilege, walks through the mount directory
	pointDigits = 16    // of the digest in a mount point's name
	markSuffix  = ".mount"
)

// Mount makes the installed image a read-only directory and returns its path. The image is read and compared with the signed
// manifest through the descriptor that is then mounted, so nothing can come between; that takes as long as reading it. Where the file
// system has fs-verity that is done once in an image's life, see guard. An image that this store, or an earlier one, mounted already
// is not read again. ctx ends only the reading.
func (s *Store) Mount(ctx context.Context, img Image) (dir string, err error) {
	if err := acquire(ctx, s.mounting); err != nil {
		return "", err
	}
	defer func() { <-s.mounting }()
	r, err := s.record(img.Digest)
	if err != nil {
		return "", err
	}
	point := s.point(r.Digest)
	ours, others, err := s.mounted(r.Digest)
	if err != nil {
		return "", fmt.Errorf("mount %s: %w", r.Name, err)
	}
	if ours {
		return point, nil
	}
	for range others { // nobody else has business here; who uses it keeps it
		s.cfg.Logger.Warn("unknown mount is detached", "module", r.Name, "image", r.Digest.String())
		if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
			return "", fmt.Errorf("mount %s: detach what is mounted at %s: %w", r.Name, point, err)
		}
	}
	how, err := s.mount(ctx, r, point)
	if err != nil {
		if errors.Is(err, bundle.ErrDigest) || errors.Is(err, os.ErrNotExist) {
			if derr := s.demote(r); derr != nil {
				err = fmt.Errorf("%w; set it aside: %w", err, derr)
			}
		}
		_ = os.Remove(point) // stays when something is mounted there
		return "", fmt.Errorf("mount %s: %w", r.Name, err)
	}
	s.cfg.Logger.Info("image mounted", "module", r.Name, "image", r.Digest.String(), "backing", how)
	return point, nil
}

func (s *Store) mount(ctx context.Context, r record, point string) (how string, err error) {
	f, err := openSealed(s.imagePath(r.manifest.Image.Digest))
	if err != nil {
		return "", fmt.Errorf("open image: %w", err)
	}
	defer func() { _ = f.Close() }()
	kernel := s.guarded(f, r.manifest.Image)
	before, err := stampOf(f)
	if err == nil && !kernel {
		if before, err = s.checkOnce(ctx, f, r.manifest.Image, before); err == nil {
			kernel = s.guarded(f, r.manifest.Image)
		}
	}
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(point, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	at, err := unix.Open(point, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open mount point %s: %w", point, err)
	}
	how, err = s.attach(f, fmt.Sprintf("/proc/self/fd/%d", at), r.manifest.Image)
	_ = unix.Close(at)
	if err != nil {
		return "", err
	}
	after, err := stampOf(f)
	if err == nil && after != before {
		err = bundle.Reject(bundle.ErrChanged, "somebody wrote to the image while it was checked: find out who can write to %s", s.blobs())
	}
	if err == nil {
		err = s.mark(r.Digest, after)
	}
	if err != nil {
		_ = unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		return "", err
	}
	if kernel {
		how += ", sealed by fs-verity"
	}
	return how, nil
}

// checkOnce reads an image whole, and has the kernel guard it from then on where it can. It returns the state of the file after that.
func (s *Store) checkOnce(ctx context.Context, f *os.File, info bundle.ImageInfo, before stamp) (stamp, error) {
	if err := checkImage(ctx, f, info); err != nil {
		return stamp{}, err
	}
	after, err := stampOf(f)
	if err != nil {
		return stamp{}, err
	}
	if after != before {
		return stamp{}, bundle.Reject(bundle.ErrChanged, "somebody wrote to the image while it was checked: find out who can write to %s", s.blobs())
	}
	if err := s.guard(f, info); err != nil {
		return stamp{}, err
	}
	return stampOf(f)
}

// attach mounts f at target in the first way that this kernel knows.
func (s *Store) attach(f *os.File, target string, info bundle.ImageInfo) (string, error) {
	var tried []string
	for _, b := range s.backings {
		err := b.mount(f, target, info)
		switch {
		case err == nil:
			return b.name, nil
		case errors.Is(err, unix.EPERM):
			return "", &bundle.Error{Code: bundle.ErrPlatform, Why: "mounting an image is not permitted: run the agent as root, with CAP_SYS_ADMIN", Err: err}
		case errors.Is(err, unix.ENODEV):
			return "", &bundle.Error{
				Code: bundle.ErrPlatform,
				Why:  "this kernel has no EROFS, and images are not unpacked into directories: build it with CONFIG_EROFS_FS, or load the module erofs",
				Err:  err,
			}
		}
		tried = append(tried, fmt.Sprintf("%s: %v", b.name, err))
	}
	return "", bundle.Reject(bundle.ErrPlatform,
		"this kernel mounts the image neither from its file nor through a loop device (%s), and images are not unpacked into directories: use Linux 6.12 with CONFIG_EROFS_FS_BACKED_BY_FILE, or 5.8 with CONFIG_BLK_DEV_LOOP (load the module loop)",
		strings.Join(tried, "; "))
}

// demote makes an image whose bytes are no longer the signed ones a part file, and its bundles absent: the next fetch keeps the
// chunks that are still good.
func (s *Store) demote(rotten record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	image := rotten.manifest.Image.Digest
	for digest, r := range s.records {
		if r.manifest.Image.Digest != image {
			continue
		}
		if err := s.forget(digest); err != nil {
			return err
		}
		delete(s.records, digest)
	}
	s.cfg.Logger.Warn("installed image is damaged and will be fetched again", "module", rotten.Name, "image", rotten.Digest.String())
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
		err := s.step("set image aside")
		if err == nil && s.unwritable(image) {
			return removeIfThere(s.imagePath(image)) // its good chunks cannot be gone on with
		}
		if err == nil {
			err = os.Rename(s.imagePath(image), filepath.Join(s.stage(), image.Hex()+partSuffix))
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	default: // a fetch may be writing that very part file
		return removeIfThere(s.imagePath(image))
	}
}

// Unmount takes the image's directory away. An image that is not mounted is no error; one in use is.
func (s *Store) Unmount(ctx context.Context, img Image) error {
	if err := acquire(ctx, s.mounting); err != nil {
		return err
	}
	defer func() { <-s.mounting }()
	ours, others, err := s.mounted(img.Digest)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", img.Name, err)
	}
	point := s.point(img.Digest)
	if ours {
		others++
	}
	for range others {
		if err := loop.Unmount(point); err != nil {
			return fmt.Errorf("image %s: %w", img.Name, err)
		}
	}
	if err := removeIfThere(point); err != nil {
		return fmt.Errorf("unmount %s: %w", img.Name, err)
	}
	return removeIfThere(point + markSuffix)
}

// Mounted reports where the image is mounted, if it is.
func (s *Store) Mounted(img Image) (dir string, ok bool) {
	ours, _, err := s.mounted(img.Digest)
	return s.point(img.Digest), err == nil && ours
}

// Verify reads an installed image from the disk and compares it with the signed manifest.
func (s *Store) Verify(ctx context.Context, img Image) error {
	r, err := s.record(img.Digest)
	if err != nil {
		return err
	}
	f, err := openSealed(s.imagePath(r.manifest.Image.Digest))
	if err != nil {
		return fmt.Errorf("verify %s: %w", r.Name, err)
	}
	defer func() { _ = f.Close() }()
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	if err := checkImage(ctx, f, r.manifest.Image); err != nil {
		return fmt.Errorf("verify %s: %w", r.Name, err)
	}
	s.mu.Lock()
	s.checkedLocked(r.Digest, 0)
	s.mu.Unlock()
	return nil
}

func (s *Store) point(digest bundle.Digest) string {
	return filepath.Join(s.cfg.MountDir, digest.Hex()[:pointDigits])
}

// mark is the note beside a mount point: which mount is ours, of which state of which file.
type mark struct {
	Version int           `json:"version"` // 1
	Digest  bundle.Digest `json:"digest"`
	Mount   string        `json:"mount"` // what the kernel calls it, see mountEntry.name
	Image   stamp         `json:"image"`
}

const markVersion = 1

func (s *Store) mark(digest bundle.Digest, image stamp) error {
	entries, err := mountsAt(s.point(digest))
	if err != nil {
		return err
	}
	if len(entries) != 1 {
		return fmt.Errorf("%d mounts at %s, want 1", len(entries), s.point(digest))
	}
	text, err := json.Marshal(mark{Version: markVersion, Digest: digest, Mount: entries[0].name(), Image: image})
	if err != nil {
		return err
	}
	return s.replaceFile("mark", s.point(digest)+markSuffix, text)
}

// mounted says whether exactly our mount, of the file as it still is, stands at the image's mount point, and how many others do.
func (s *Store) mounted(digest bundle.Digest) (ours bool, others int, err error) {
	point := s.point(digest)
	entries, err := mountsAt(point)
	if err != nil || len(entries) == 0 {
		return false, 0, err
	}
	if len(entries) > 1 || !entries[0].sealed() {
		return false, len(entries), nil
	}
	m, ok := s.marked(digest)
	if !ok {
		return false, 1, nil
	}
	r, err := s.record(digest)
	if err != nil {
		return false, 1, nil
	}
	f, err := openSealed(s.imagePath(r.manifest.Image.Digest))
	if err != nil {
		return false, 1, nil
	}
	defer func() { _ = f.Close() }()
	now, err := stampOf(f)
	if err != nil {
		return false, 1, nil
	}
	if (m == mark{Version: markVersion, Digest: digest, Mount: entries[0].name(), Image: now}) {
		return true, 0, nil
	}
	return false, 1, nil
}

// marked reads the note beside a mount point.
func (s *Store) marked(digest bundle.Digest) (mark, bool) {
	text, err := os.ReadFile(s.point(digest) + markSuffix)
	var m mark
	return m, err == nil && json.Unmarshal(text, &m) == nil
}

// markAgain has our mount of an image known as ours after we wrote to its file. The caller has checked the whole image, and nothing
// is mounted meanwhile.
func (s *Store) markAgain(digest bundle.Digest, f *os.File) error {
	entries, err := mountsAt(s.point(digest))
	if err != nil {
		return err
	}
	m, ok := s.marked(digest)
	if !ok || len(entries) != 1 || !entries[0].sealed() || m.Digest != digest || m.Mount != entries[0].name() {
		return nil // not mounted, or not by us
	}
	now, err := stampOf(f)
	if err != nil {
		return err
	}
	return s.mark(digest, now)
}

// stamp tells two states of a file apart: whoever writes to it changes it.
type stamp struct {
	Dev, Ino      uint64
	Size          int64
	CtimeS, CtimN int64
}

func stampOf(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, fmt.Errorf("stat image: %w", err)
	}
	return stamp{uint64(st.Dev), uint64(st.Ino), st.Size, int64(st.Ctim.Sec), int64(st.Ctim.Nsec)}, nil //nolint:unconvert // 32-bit targets differ
}

// openSealed opens an image that only we can have put there: a regular file with one name.
func openSealed(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
			return f, nil
		}
		_ = f.Close()
	}
	if err == nil || errors.Is(err, unix.ELOOP) {
		return nil, bundle.Reject(bundle.ErrDigest, "%s was replaced by a link or has a second name: find out who can write there, it is fetched again", path)
	}
	return nil, err
}

// checkImage reads a whole image through its descriptor, compares it with the manifest, and walks it. It ends with ctx.
func checkImage(ctx context.Context, f *os.File, info bundle.ImageInfo) error {
	content := bundle.NewContent()
	if _, err := io.Copy(content, &contextReader{ctx, io.NewSectionReader(f, 0, int64(info.Size)+1)}); err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	if err := content.Check(info); err != nil {
		return err
	}
	_, err := bundle.CheckImage(f, int64(info.Size))
	return err
}

type contextReader struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
