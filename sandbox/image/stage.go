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

// part is an image that is being fetched: chunks in order from the start of a file, as many as arrived.
type part struct {
	file  *os.File
	path  string
	index bundle.Index
	good  int   // chunks that are in the file and were compared with the index
	plain int64 // their bytes
}

// openPart opens or makes the part file of an image and counts what of it can be kept: each chunk is hashed again, so neither a
// power cut nor a rotten sector matters. Whatever follows the last good chunk is cut off.
func (s *Store) openPart(image bundle.Digest, index bundle.Index) (*part, error) {
	path := filepath.Join(s.stage(), image.Hex()+partSuffix)
	f, err := openOwn(path)
	if err != nil {
		return nil, fmt.Errorf("open part file: %w", err)
	}
	p := &part{file: f, path: path, index: index}
	if err := p.recount(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("read part file: %w", err)
	}
	return p, nil
}

// openOwn opens a regular file of ours with one name. Anything else under that name is removed first: nobody but us writes there.
func openOwn(path string) (*os.File, error) {
	const flags = os.O_RDWR | os.O_CREATE | unix.O_NOFOLLOW | unix.O_NONBLOCK
	for range 2 {
		f, err := os.OpenFile(path, flags, 0o600)
		if err == nil {
			var st unix.Stat_t
			err = unix.Fstat(int(f.Fd()), &st)
			if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
				return f, nil
			}
			_ = f.Close()
		}
		if err := os.RemoveAll(path); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s is not a file of this agent's", path)
}

func (p *part) recount() error {
	buf := make([]byte, bundle.MaxChunk)
	for _, c := range p.index {
		b := buf[:c.Plain]
		if _, err := p.file.ReadAt(b, p.plain); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return err
		}
		if sha256.Sum256(b) != c.Digest {
			break
		}
		p.good++
		p.plain += int64(c.Plain)
	}
	return p.file.Truncate(p.plain)
}

// reserve takes the disk blocks of the whole image, so that a full disk shows before the transfer. File systems that cannot are
// left alone.
func (p *part) reserve(size int64) error {
	err := unix.Fallocate(int(p.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	switch {
	case errors.Is(err, unix.ENOSPC):
		return &bundle.Error{Code: bundle.ErrSpace, Why: fmt.Sprintf("the disk has no room for an image of %d bytes: remove images or logs", size), Err: err}
	case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return nil
	}
	return fmt.Errorf("reserve space: %w", err)
}

// add writes the next chunk, which the caller has checked.
func (p *part) add(plain []byte) error {
	if _, err := p.file.WriteAt(plain, p.plain); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			return &bundle.Error{Code: bundle.ErrSpace, Why: "the disk is full: remove images or logs", Err: err}
		}
		return fmt.Errorf("write part file: %w", err)
	}
	p.good++
	p.plain += int64(len(plain))
	return nil
}

// whole reports whether every chunk is there.
func (p *part) whole() bool { return p.good == len(p.index) }

// stored is where the next chunk starts in the payload.
func (p *part) stored() int64 {
	_, stored := p.index.Sums(p.good)
	return stored
}

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
