package image

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// part is an image that is being fetched: a file of its length in which chunks arrive, each in its place.
type part struct {
	file   *os.File
	path   string
	index  bundle.Index
	plain  []int64 // where each chunk starts in the image; one more entry for the end
	stored []int64 // and in the payload
	have   []bool  // chunks that are in the file and were compared with the index
	missed int     // how many are not
	bytes  int64   // of the chunks that are

	unsynced  int64
	syncEvery int64
	step      func(string) error
}

// defaultSyncEvery is how many bytes a power cut may take from a transfer.
const defaultSyncEvery = 4 << 20

// openPart opens or makes the part file of an image and finds what of it can be kept: each chunk is hashed in its place, so neither
// a power cut nor a rotten sector matters, and an image that was installed once loses only what is rotten.
func (s *Store) openPart(image bundle.Digest, index bundle.Index) (*part, error) {
	p := newPart(index)
	p.path, p.step, p.syncEvery = s.partPath(image), s.step, s.cfg.syncEvery
	err := s.step("open part")
	if err == nil {
		p.file, err = openOwn(p.path)
	}
	if err != nil {
		return nil, diskError("open part file", err)
	}
	if err = s.step("read part"); err == nil {
		err = p.recount()
	}
	if err != nil {
		p.close()
		return nil, diskError("read part file", err)
	}
	return p, nil
}

func newPart(index bundle.Index) *part {
	p := &part{index: index, plain: make([]int64, len(index)+1), stored: make([]int64, len(index)+1), have: make([]bool, len(index)), missed: len(index)}
	for i, c := range index {
		p.plain[i+1] = p.plain[i] + int64(c.Plain)
		p.stored[i+1] = p.stored[i] + int64(c.Stored)
	}
	return p
}

// openOwn opens a regular file of ours with one name. Anything else under that name is removed first: nobody but us writes there. A
// file that was sealed as an image, and not kept as one since the power went, is ours to write to again.
func openOwn(path string) (*os.File, error) {
	for range 2 {
		f, err := openOnly(path, os.O_RDWR|os.O_CREATE)
		if errors.Is(err, os.ErrPermission) && unseal(path) == nil {
			f, err = openOnly(path, os.O_RDWR)
		}
		if err == nil {
			return f, nil
		}
		if err := os.RemoveAll(path); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s is not a file of this agent's", path)
}

// openOnly opens a regular file with one name, and nothing else.
func openOnly(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		return nil, errors.Join(os.ErrInvalid, err, f.Close())
	}
	return f, nil
}

// unseal lets the owner write to a file again: only root may without that.
func unseal(path string) error {
	f, err := openOnly(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

func (p *part) recount() error {
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	if end := p.plain[len(p.index)]; info.Size() > end {
		if err := p.file.Truncate(end); err != nil {
			return err
		}
	}
	buf := make([]byte, bundle.MaxChunk)
	for i, c := range p.index {
		b := buf[:c.Plain]
		if _, err := p.file.ReadAt(b, p.plain[i]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			continue // a sector that cannot be read is written again
		}
		if sha256.Sum256(b) == c.Digest {
			p.note(i)
		}
	}
	return nil
}

func (p *part) note(i int) {
	if !p.have[i] {
		p.have[i] = true
		p.missed--
		p.bytes += int64(p.index[i].Plain)
	}
}

// blocks is what the file takes on the disk, up to its length: reserved blocks are not wanted twice.
func (p *part) blocks() int64 {
	var st unix.Stat_t
	if unix.Fstat(int(p.file.Fd()), &st) != nil {
		return 0
	}
	return min(st.Blocks*512, p.plain[len(p.index)])
}

// reserve takes the disk blocks of the whole image, so that a full disk shows before the transfer. File systems that cannot are
// left alone.
func (p *part) reserve() error { return reserve(p.file, p.plain[len(p.index)], p.step) }

func reserve(f *os.File, size int64, step func(string) error) error {
	err := step("reserve part")
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	}
	switch {
	case errors.Is(err, unix.ENOSPC):
		return &bundle.Error{Code: bundle.ErrSpace, Why: fmt.Sprintf("the disk has no room for an image of %d bytes: remove images or logs", size), Err: err}
	case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return nil
	}
	return fmt.Errorf("reserve space: %w", err)
}

// add writes a chunk, which the caller has checked. Every few MiB it waits for the disk.
func (p *part) add(i int, plain []byte) error {
	err := p.step("write part")
	if err == nil {
		_, err = p.file.WriteAt(plain, p.plain[i])
	}
	if err == nil {
		if p.unsynced += int64(len(plain)); p.unsynced >= p.syncEvery {
			p.unsynced = 0
			if err = p.step("sync part"); err == nil {
				err = unix.Fdatasync(int(p.file.Fd()))
			}
		}
	}
	if err != nil {
		return diskError("write part file", err)
	}
	p.note(i)
	return nil
}

// diskError names a full disk.
func diskError(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &bundle.Error{Code: bundle.ErrSpace, Why: "the disk is full: remove images or logs", Err: err}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// whole reports whether every chunk is there.
func (p *part) whole() bool { return p.missed == 0 }

// close keeps the file for a later fetch.
func (p *part) close() {
	if p != nil && p.file != nil {
		_ = p.file.Close() // nothing in it is relied on unread
		p.file = nil
	}
}

// discard removes the file.
func (p *part) discard() {
	if p != nil {
		p.close()
		_ = os.Remove(p.path) // the next fetch checks whatever remains
	}
}

func (s *Store) partPath(image bundle.Digest) string {
	return filepath.Join(s.stage(), image.Hex()+partSuffix)
}
