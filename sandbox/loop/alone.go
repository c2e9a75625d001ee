package loop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Alone waits until no loop device is before f, for two seconds at the most. [Unmount] takes a mount out of this mount namespace only: one that
// was made meanwhile, as each sandbox's is, begins with a copy of it, and as long as that is there the file system lives and its device
// too. Whoever binds a second device then reads what the first has not written yet, and each overwrites the other.
func Alone(f *os.File) error {
	look := time.NewTicker(interval)
	defer look.Stop()
	for end := time.Now().Add(patience); ; <-look.C {
		device, err := before(f)
		if err != nil {
			return err
		}
		if device == "" {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %s is before it still, as another mount namespace has its file system: %w", f.Name(), device, unix.EBUSY)
		}
	}
}

// before is the loop device that is before f, "" for none.
func before(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	bound, err := filepath.Glob("/sys/block/loop*/loop") // is there as long as the device is bound
	if err != nil {
		return "", err
	}
	for _, at := range bound {
		name := "/dev/" + strings.Split(at, "/")[3]
		device, err := os.Open(name)
		if err != nil {
			continue // it has just gone, or is out of reach in this /dev, and then not ours
		}
		info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
		_ = device.Close()
		if err == nil && info.Inode == st.Ino && info.Device == st.Dev {
			return name, nil
		}
	}
	return "", nil
}
