package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// rootfs is what a sandbox gets as "/", and what is mounted into it.
type rootfs struct {
	path   string
	mounts []*configs.Mount
	opened map[*configs.Mount]*os.File // sources that were looked at: what is mounted is these
}

// close closes what was opened. Whoever was made keeps its mounts.
func (r *rootfs) close() {
	for _, f := range r.opened {
		_ = f.Close()
	}
}

// appDir is where a HostView has its image.
const appDir = "/app"

// made are the directories every root has; the runtime mounts on them.
var made = []string{"/proc", "/sys", "/dev", "/tmp", "/run"}

// makeRoot builds roots/<id>: skel holds the mount points and files that the
// sandbox needs, and for an image an overlay joins it to the image, which stays
// as it is. Both are read-only once mounted. With the sandbox's user namespace as
// owner, files of root in the image are its root's, where the kernel can do that.
func (r *Runtime) makeRoot(s sandbox.Spec, u user, owner *os.File) (rootfs, error) {
	base := r.rootOf(s.ID)
	if err := r.removeRoot(s.ID); err != nil { // of a dead agent
		return rootfs{}, err
	}
	if err := os.Mkdir(base, 0o711); err != nil {
		return rootfs{}, err
	}
	t := &tree{dir: filepath.Join(base, "skel")}
	if err := os.Mkdir(t.dir, 0o755); err != nil {
		return rootfs{}, err
	}
	root := rootfs{path: t.dir, opened: map[*configs.Mount]*os.File{}}
	image := s.Root.Image
	if owner != nil {
		if mapped, err := mapImage(image, filepath.Join(base, "image"), owner); err == nil {
			image = mapped
		} else if !errors.Is(err, errUnmappable) {
			return root, fmt.Errorf("mount image %s: %w", image, err)
		}
	}
	if s.Root.Kind == sandbox.Image {
		t.image = s.Root.Image
	} else if err := hostView(t, image, &root); err != nil {
		return rootfs{}, fmt.Errorf("host view: %w", err)
	}
	for _, d := range made {
		t.mkdir(d)
	}
	t.mkdir(cwd(s))
	writeEtc(t, s, &root)
	if err := targets(t, s, u, &root); err != nil {
		return root, err
	}
	if t.err != nil {
		return root, fmt.Errorf("make root: %w", t.err)
	}
	if s.Root.Kind == sandbox.Image {
		root.path = filepath.Join(base, "merged")
		err := r.mountImage(s, image, t, &root)
		if errors.Is(err, unix.EINVAL) && image != s.Root.Image { // overlayfs takes no such layer before 5.19
			err = r.mountImage(s, s.Root.Image, t, &root)
		} else if err == nil && image != s.Root.Image {
			err = shiftOwners(t.dir, int(s.IDBase))
		}
		if err != nil {
			return root, err
		}
	}
	return root, nil
}

// mountImage joins skel and image at root.path.
func (r *Runtime) mountImage(s sandbox.Spec, image string, t *tree, root *rootfs) error {
	if err := os.Mkdir(root.path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if s.Root.Writable > 0 {
		if !r.features.Overlay || image == s.Root.Image { // without its ids in place nothing of root's could be changed
			return fmt.Errorf("writable root: %w: it needs overlayfs, and idmapped mounts of it (Linux 5.19)", sandbox.ErrUnsupported)
		}
		return mountWritable(s, image, t, root)
	}
	if r.features.Overlay {
		lower := "lowerdir=" + escape(t.dir) + ":" + escape(image)
		if err := unix.Mount("overlay", root.path, "overlay", flags, lower); err != nil {
			return fmt.Errorf("mount image %s: %w", s.Root.Image, err)
		}
		return nil
	}
	// Without overlayfs the image must bring what would be in skel.
	if err := unix.Mount(image, root.path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount image %s: %w", s.Root.Image, err)
	}
	if err := unix.Mount("", root.path, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("make image %s read-only: %w", s.Root.Image, err)
	}
	for _, m := range t.missing {
		if _, err := os.Lstat(filepath.Join(root.path, m)); err != nil {
			return fmt.Errorf("image %s has no %s, and this kernel has no overlayfs to add it; add it to the image or build the kernel with CONFIG_OVERLAY_FS", s.Root.Image, m)
		}
	}
	for _, f := range t.files {
		root.mounts = append(root.mounts, bind(filepath.Join(t.dir, f), f, readOnly))
	}
	return nil
}

// mountWritable joins skel and image at root.path, below a tmpfs that takes what the
// module changes. What it writes there counts as its memory.
func mountWritable(s sandbox.Spec, image string, t *tree, root *rootfs) error {
	place := filepath.Join(filepath.Dir(root.path), "upper")
	if err := os.Mkdir(place, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := unix.Mount("tmpfs", place, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=711,size=%d", s.Root.Writable)); err != nil {
		return &os.PathError{Op: "mount", Path: place, Err: err}
	}
	upper, work := filepath.Join(place, "changes"), filepath.Join(place, "work")
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chown(upper, int(s.IDBase), int(s.IDBase)); err != nil { // it stands for the root itself
		return err
	}
	layers := "lowerdir=" + escape(t.dir) + ":" + escape(image) + ",upperdir=" + escape(upper) + ",workdir=" + escape(work)
	if err := unix.Mount("overlay", root.path, "overlay", unix.MS_NOSUID|unix.MS_NODEV, layers); err != nil {
		return fmt.Errorf("mount image %s: %w", s.Root.Image, err)
	}
	return nil
}

// escape quotes what separates the layers and options of an overlay.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(path)
}

// removeRoot unmounts and removes roots/<id>; it need not be there.
func (r *Runtime) removeRoot(id string) error {
	base := r.rootOf(id)
	for _, name := range []string{"merged", "upper", "image"} {
		place := filepath.Join(base, name)
		// Detached: nobody is left in it, and a lazy end is better than a stuck one.
		if err := unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil &&
			!errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
			return &os.PathError{Op: "unmount", Path: place, Err: err}
		}
		// One directory deep by name: never a recursive removal where an image could
		// still be mounted.
		if err := os.Remove(place); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove root: %w", err)
		}
	}
	if err := os.RemoveAll(base); err != nil {
		return fmt.Errorf("remove root: %w", err)
	}
	return nil
}

// targets makes the mount points of the Spec's mounts and lists the mounts.
func targets(t *tree, s sandbox.Spec, u user, root *rootfs) error {
	for _, m := range s.Mounts {
		flags := unix.O_PATH | unix.O_CLOEXEC
		if m.Writable { // a link there would open another place of the host's to the module
			flags |= unix.O_NOFOLLOW
		}
		f, err := os.OpenFile(m.Source, flags, 0)
		if err != nil {
			return fmt.Errorf("mount on %s: %w", m.Target, err)
		}
		b := bind(m.Source, t.resolve(m.Target), access(m.Writable))
		root.opened[b] = f
		root.mounts = append(root.mounts, b)
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("mount on %s: %w", m.Target, err)
		}
		if st.Mode().Type() == fs.ModeSymlink {
			return fmt.Errorf("mount on %s: %s is a link; a writable mount must be the directory itself", m.Target, m.Source)
		}
		if m.Own {
			if err := unix.Fchownat(int(f.Fd()), "", int(s.IDBase)+u.uid, int(s.IDBase)+u.gid, unix.AT_EMPTY_PATH); err != nil {
				return fmt.Errorf("give %s to module: %w", m.Source, err)
			}
		}
		if !onTmpfs(m.Target) { // libcontainer makes those itself
			if st.IsDir() {
				t.mkdir(m.Target)
			} else {
				t.touch(m.Target)
			}
		}
	}
	return nil
}

func onTmpfs(target string) bool {
	return strings.HasPrefix(target, "/tmp/") || strings.HasPrefix(target, "/run/")
}

// access says what a module may do with a bind.
type access bool

const (
	readOnly access = false
	writable access = true
)

// bind mounts source and all that is mounted below it: without set-uid and device
// nodes, and read-only if wanted, all the way down.
func bind(source, target string, a access) *configs.Mount {
	m := &configs.Mount{
		Source: source, Destination: target, Device: "bind",
		Flags: unix.MS_BIND | unix.MS_REC | unix.MS_NOSUID | unix.MS_NODEV,
	}
	if st, err := os.Stat(source); err == nil && !st.IsDir() { // nothing is mounted below a file
		m.Flags &^= unix.MS_REC
		if a == readOnly {
			m.Flags |= unix.MS_RDONLY
		}
		return m
	}
	set := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if a == readOnly {
		m.Flags |= unix.MS_RDONLY
		set |= unix.MOUNT_ATTR_RDONLY
	}
	if mountSetattr() {
		m.RecAttr = &unix.MountAttr{Attr_set: set}
	}
	return m
}

// mountSetattr tells whether flags can be set for all mounts below one (Linux
// 5.12). Before, only the topmost mount of a bind is read-only; what is mounted
// below it on the host is then guarded by its owner's permissions alone.
func mountSetattr() bool {
	err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{})
	return !errors.Is(err, unix.ENOSYS)
}
