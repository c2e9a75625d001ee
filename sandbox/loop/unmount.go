package loop

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// How long [Unmount] waits for the last descriptor, and how often it looks. A process that was just forked holds copies of its
// parent's until it executes its program (execve(2)), close-on-exec or not: nobody is using the mount, and it is busy.
const (
	patience = 2 * time.Second
	interval = 5 * time.Millisecond
)

// Unmount takes away what is mounted at point. One that stays busy for two seconds is an error and stays: detached, it could be
// mounted again beside itself, and two file systems would write to the same blocks.
func Unmount(point string) error {
	look := time.NewTicker(interval)
	defer look.Stop()
	for end := time.Now().Add(patience); ; <-look.C {
		err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("unmount %s: %w", point, err)
		case time.Now().After(end):
			return fmt.Errorf("unmount %s: %w: a process still has a file open in it, or works in it", point, err)
		}
	}
}
