package store

import "golang.org/x/sys/unix"

// apart returns n zero bytes beside the garbage collector's heap, and what gives
// them back at once. The collector lets its heap grow to twice what is in use
// before it looks for garbage: a journal's two MiB would cost four, and more
// while one follows another. Without such memory it is the heap's.
func apart(n int) (b []byte, free func()) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]byte, n), func() {}
	}
	return b, func() { unix.Munmap(b) } //nolint:errcheck // it is ours and whole
}
