package store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// maxJournals is how many journals there are at most while the disk is well: one
// takes commits, one is being sealed, one is ready. Each has its size in memory
// as well.
const maxJournals = 3

const journalSuffix = ".journal"

// journal is a file of one size, written full of zeros once and then over and
// over, so that a commit changes nothing but its own blocks: no size, no map of
// blocks, which would cost the file system a flush and some KiB more. At its end
// is a block that says what there was when it was made, see [block]; it stays.
type journal struct {
	file
	path   string
	key    uint32 // see [block]
	old    bool   // of format 2, and not used again
	size   int64
	failed bool // a write or a flush failed: it is not used again
}

// journals is the folder of journals.
type journals struct {
	medium medium
	folder string
	io     *counters
	ledger *ledger
	log    *slog.Logger
	room   func(n int64) error // says whether n further bytes may be taken

	mu    sync.Mutex
	free  []*journal
	all   int // that are not failed
	slot  int // the highest number of a file
	gifts int // counts what was given back
	zeros []byte
}

// errBusy: every journal waits to be sealed.
var errBusy = errors.New("every journal is waiting to be sealed")

// take returns a journal of a size that nobody needs, made if there may be one
// more. Its error is errBusy if there may not.
func (p *journals) take(size int64, most int) (*journal, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.free) > 0 {
		j := p.free[0]
		p.free = p.free[1:]
		if j.size == size {
			return j, nil
		}
		p.dropLocked(j)
	}
	if p.all >= most {
		return nil, errBusy
	}
	return p.makeLocked(size)
}

// prepare makes a further journal ready if none is and there may be one more.
func (p *journals) prepare(size int64, most int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) > 0 || p.all >= most {
		return nil
	}
	j, err := p.makeLocked(size)
	if err == nil {
		p.free = append(p.free, j)
	}
	return err
}

func (p *journals) makeLocked(size int64) (*journal, error) {
	if err := p.room(size); err != nil {
		return nil, err
	}
	if p.zeros == nil {
		p.zeros = make([]byte, 64<<10)
	}
	key := rand.Uint32()
	path := filepath.Join(p.folder, fmt.Sprintf("%d-%08x%s", p.slot+1, key, journalSuffix))
	last := make([]byte, blockHeader)
	block{before: p.ledger.highest(), stored: p.ledger.storedSoFar()}.seal(last, key)
	left := size
	err := writeWhole(p.medium, path+newSuffix, path, func() []byte {
		b := p.zeros[:max(0, min(left-blockHeader, int64(len(p.zeros))))]
		if left == blockHeader {
			b = last
		}
		left -= int64(len(b))
		return b
	})
	if err != nil {
		return nil, classify(fmt.Errorf("make journal: %w", err))
	}
	p.slot++
	p.io.wrote(int(size))
	p.io.synced()
	p.io.synced()
	j := &journal{path: path, key: key, size: size}
	if j.file, err = p.medium.open(path, os.O_RDWR); err != nil {
		return nil, classify(fmt.Errorf("open journal: %w", err))
	}
	p.all++
	p.ledger.taken(size)
	return j, nil
}

// fail notes that a journal cannot be trusted: another may take its place.
func (p *journals) fail(j *journal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !j.failed {
		j.failed = true
		p.all--
	}
}

// give gives a journal back whose records are safe elsewhere.
func (p *journals) give(j *journal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gifts++
	if j.failed || j.old || p.all > maxJournals {
		p.dropLocked(j)
		return
	}
	p.free = append(p.free, j)
}

// dropLocked removes a journal. What is left of it after an error is looked at
// when the store opens again, and is known then.
func (p *journals) dropLocked(j *journal) {
	if !j.failed {
		p.all--
	}
	p.ledger.taken(-j.size)
	j.Close()                  //nolint:errcheck // nothing in it is needed
	p.medium.remove(j.path)    //nolint:errcheck // the same
	p.medium.syncDir(p.folder) //nolint:errcheck // the same
}

// adopt opens the journals that are there and returns them as drafts of which
// nobody knows what they have.
func (p *journals) adopt() (found []*draft, err error) {
	names, err := filepath.Glob(filepath.Join(p.folder, "*"+journalSuffix))
	if err != nil {
		return nil, fmt.Errorf("list journals: %w", err)
	}
	for _, path := range names {
		n, key, old, ok := parseJournalName(path)
		if !ok {
			continue
		}
		p.slot = max(p.slot, n)
		d, err := p.read(path)
		if errors.Is(err, syscall.EIO) {
			p.io.damaged.Add(1)
			p.log.Error("journal cannot be read: what was only in it is lost", "file", path, "err", err)
			continue
		}
		if err != nil {
			return found, readOnly(fmt.Errorf("read journal %d: %w", n, err))
		}
		d.key, d.journal.key, d.journal.old = key, key, old
		if _, ok := parseBlock(d.buf[max(0, len(d.buf)-blockHeader):], key); !ok && !old {
			p.io.damaged.Add(1)
			p.log.Error("journal is damaged: the block at its end is missing", "file", path)
			p.fail(d.journal)
		}
		found = append(found, d)
	}
	return found, nil
}

// parseJournalName takes a journal's name apart: its number, and the key of its
// blocks, which one of format 2 has not.
func parseJournalName(path string) (n int, key uint32, old, ok bool) {
	number, hex, keyed := strings.Cut(strings.TrimSuffix(filepath.Base(path), journalSuffix), "-")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 {
		return 0, 0, false, false
	}
	k, err := strconv.ParseUint(hex, 16, 32)
	return n, uint32(k), !keyed, !keyed || err == nil && len(hex) == 8
}

// room is how many bytes of a journal blocks may take.
func (j *journal) room() int { return int(j.size) - blockHeader }

// read reads one journal. A part that the disk cannot read is zero, and the file
// is not used again.
func (p *journals) read(path string) (*draft, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	j := &journal{path: path, size: info.Size(), failed: info.Size() < minSegment || info.Size() > maxJournal}
	if j.file, err = p.medium.open(path, os.O_RDWR); err != nil {
		return nil, err
	}
	if !j.failed {
		p.all++
	}
	p.ledger.taken(j.size)
	d := &draft{journal: j, buf: []byte{}}
	if j.size > 0 {
		d.buf, d.free = apart(int(min(j.size, maxJournal)))
	}
	b := d.buf
	for at := 0; at < len(b); at += pageSize {
		if at == 0 {
			if _, err := j.ReadAt(b, 0); err == nil {
				break
			}
		}
		part := b[at:min(at+pageSize, len(b))]
		if _, err := j.ReadAt(part, int64(at)); err != nil && !errors.Is(err, io.EOF) {
			clear(part)
			if !j.failed {
				j.failed = true
				p.all--
			}
		}
	}
	return d, nil
}

// close closes what nobody uses; drafts close their own.
func (p *journals) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, j := range p.free {
		err = errors.Join(err, j.Close())
	}
	p.free = nil
	return err
}

// given counts the journals that were given back.
func (p *journals) given() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gifts
}
