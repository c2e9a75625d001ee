package container_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// settled waits until nobody has a program open to write to it, for which the kernel would not run it (ETXTBSY). We have closed it, but a
// process that another test has just forked holds copies of our descriptors until it executes its own. A read lease is given only when
// there is no writer (fcntl(2)).
func settled(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		if !errors.Is(err, unix.EAGAIN) { // given, or this file system has none
			_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is open to be written for %v", path, patience)
		}
	}
}
