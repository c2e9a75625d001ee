package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// formatVersion is the version of everything on disk. It stands in state.db and
// in each segment; a higher one is refused. 1 had no journals, and segments that
// were written in place; 2 had no balance, and positions in state.db only.
const formatVersion = 3

const (
	stateMaxBytes = 64 << 20
	stateStep     = 1 << 20 // bytes by which the file grows
	stateReserve  = 256 << 10
	// stateSpare is what may be taken above stateMaxBytes by what makes room or
	// needs little: documents that fill the file do not stop acknowledgements.
	stateSpare = 4 << 20
	// compactFrom is the size from which a half empty state.db is rewritten at
	// start.
	compactFrom = 8 << 20
)

// Buckets of state.db. Every value ends in a checksum over key and value.
var (
	bucketMeta    = []byte("meta")    // format, clock, seq
	bucketDocs    = []byte("docs")    // key → document
	bucketCursors = []byte("cursors") // priority, sink → how far the lane is drained
	bucketCatalog = []byte("catalog") // number → what a sealed segment holds
	keyFormat     = []byte("format")
	keyClock      = []byte("clock")
	keySeq        = []byte("seq")    // no record that is gone had a higher sequence
	keyStored     = []byte("stored") // balance.stored
	keyGone       = []byte("gone")   // balance.gone
	keyTx         = []byte("tx")     // the transaction that wrote it: every one does
)

// state is state.db, the only file that is written in place and read at every
// start. It is verified before bbolt sees it, and a damaged one is put aside:
// the cost is that messages are delivered again and documents are fetched or
// made anew.
type state struct {
	db   *bbolt.DB
	file *os.File // bbolt's own
	log  *slog.Logger

	// turn is held by the one that commits, for itself and for all in line.
	turn   sync.Mutex
	failed error // after a commit that the disk refused: guarded by turn

	line  line
	io    *counters
	stale bool          // a page was of an older transaction than the file when it was opened
	vouch func() uint64 // balance.stored: every commit vouches for the queue. nil while that is not known
}

// openState opens state.db in d, or makes it. recovered says that there was one
// and it could not be used.
func openState(d *dir, log *slog.Logger, io *counters) (s *state, made, recovered bool, err error) {
	path := d.state()
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, false, false, fmt.Errorf("look at state.db: %w", err)
	default:
		err := verify(path, 1)
		if err == nil {
			s, err = useState(path, log, io)
		}
		if err == nil {
			err = s.inspect()
		}
		if err == nil || !isDamage(err) {
			return s, false, false, err
		}
		bad, qerr := quarantine(path, "", "")
		if qerr != nil {
			return nil, false, false, readOnly(fmt.Errorf("put state.db aside: %w", qerr))
		}
		log.Error("state.db is damaged and was put aside; messages may be delivered again, documents are made anew",
			"file", bad, "bytes", info.Size(), "err", err)
		io.damaged.Add(1)
		recovered = true
	}
	s, err = makeState(d, log, io, !recovered && d.bare())
	return s, true, recovered, err
}

// makeState makes an empty state.db beside its place and moves it there whole.
// bare says that there are no messages, and so it knows all about them.
func makeState(d *dir, log *slog.Logger, io *counters, bare bool) (*state, error) {
	s, err := mapState(d.state()+newSuffix, log, io)
	if err != nil {
		return nil, readOnly(fmt.Errorf("make state.db: %w", err))
	}
	err = s.do(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketDocs, bucketCursors, bucketCatalog} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if bare {
			if err := (balance{}).put(tx); err != nil {
				return err
			}
		}
		return putFormat(tx)
	})
	if err == nil {
		err = os.Rename(d.state()+newSuffix, d.state())
	}
	if err == nil {
		err = syncDir(d.path)
	}
	if err != nil {
		return nil, classify(errors.Join(fmt.Errorf("make state.db: %w", err), s.close()))
	}
	return s, nil
}

func putFormat(tx *bbolt.Tx) error {
	format := binary.BigEndian.AppendUint32(nil, formatVersion)
	return tx.Bucket(bucketMeta).Put(keyFormat, sealed(keyFormat, format))
}

// useState opens a state.db that verify has walked.
func useState(path string, log *slog.Logger, io *counters) (*state, error) {
	s, err := mapState(path, log, io)
	if err != nil {
		return nil, readOnly(fmt.Errorf("open state.db: %w", err))
	}
	old := false
	err = s.read(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketDocs, bucketCursors, bucketCatalog} {
			if tx.Bucket(name) == nil {
				return damaged(0, "bucket %q is missing", name)
			}
		}
		format, ok := opened(keyFormat, tx.Bucket(bucketMeta).Get(keyFormat))
		if !ok || len(format) != 4 {
			return damaged(0, "the format version cannot be read")
		}
		if v := binary.BigEndian.Uint32(format); v > formatVersion {
			return fmt.Errorf("%w: %s has format %d and this program reads up to %d; "+
				"install the newer program again, or move the folder away to start empty", ErrNewer, path, v, formatVersion)
		}
		old = binary.BigEndian.Uint32(format) < formatVersion
		return nil
	})
	if err == nil && old { // an older program must not touch what is written from here on
		err = s.do(putFormat)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s.compact(path, log, io)
}

// inspect reads all that the store will read, and drops what is damaged.
func (s *state) inspect() error {
	found, err := s.kept() // before anything is written: that would make a stale page look new
	if err == nil {
		var dropped int
		s.stale = found.stale
		dropped, err = s.sift()
		s.io.documents.Add(uint64(dropped))
	}
	if err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

// compact rewrites a large state.db of which most is free, and returns the
// state to go on with.
func (s *state) compact(path string, log *slog.Logger, io *counters) (*state, error) {
	info, err := s.file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at state.db: %w", err), s.close())
	}
	free := int64(s.db.Stats().FreePageN) * pageSize
	if info.Size() < compactFrom || free < info.Size()/2 {
		return s, nil
	}
	small, err := mapState(path+newSuffix, log, io)
	if err != nil {
		log.Warn("state.db stays as large as it is", "bytes", info.Size(), "err", err)
		return s, nil
	}
	err = bbolt.Compact(small.db, s.db, 1<<20)
	if err == nil { // transactions are counted anew
		err = small.do(func(*bbolt.Tx) error { return nil })
	}
	err = errors.Join(err, small.close())
	if err == nil {
		err = os.Rename(path+newSuffix, path)
	}
	if err != nil {
		log.Warn("state.db stays as large as it is", "bytes", info.Size(), "err", errors.Join(err, remove(path+newSuffix)))
		return s, nil
	}
	if err := errors.Join(s.close(), syncDir(filepath.Dir(path))); err != nil {
		return nil, fmt.Errorf("replace state.db by its compact copy: %w", err)
	}
	log.Info("state.db was compacted", "bytes", info.Size(), "free", free)
	return mapState(path, log, io)
}

// mapState lets bbolt open path. The list of free pages is kept on disk: bbolt
// would otherwise walk the file in a goroutine of its own, where a fault cannot
// be caught.
func mapState(path string, log *slog.Logger, io *counters) (s *state, err error) {
	s = &state{log: log, io: io}
	defer catch(&err)
	s.db, err = bbolt.Open(path, fileMode, &bbolt.Options{
		Timeout: time.Second, PageSize: pageSize, FreelistType: bbolt.FreelistMapType,
		InitialMmapSize: stateMaxBytes / 4, MaxSize: stateMaxBytes,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			s.file = f
			return f, err
		},
	})
	if err != nil {
		return nil, err
	}
	s.db.AllocSize = stateStep
	return s, nil
}

// reserve keeps zero-filled room behind the pages in use, so that cursors can
// move and disk space comes back when the partition is full. Without room for
// it the commit is still tried.
func (s *state) reserve() error {
	info, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("look at state.db: %w", err)
	}
	var high int64
	if err := s.db.View(func(tx *bbolt.Tx) error { high = tx.Size(); return nil }); err != nil {
		return fmt.Errorf("read state.db: %w", err)
	}
	if info.Size()-high >= stateReserve || info.Size()+stateReserve*2 > stateMaxBytes {
		return nil
	}
	zeros := make([]byte, 2*stateReserve)
	if n, err := s.file.WriteAt(zeros, info.Size()); err != nil && n == 0 {
		s.log.Debug("state.db has no reserve left", "err", err)
	}
	return nil
}

// read runs fn in a read transaction; a page that cannot be read is a *damage.
func (s *state) read(fn func(tx *bbolt.Tx) error) (err error) {
	defer catch(&err)
	defer faults()()
	return classify(s.db.View(fn))
}

func (s *state) close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// roomless gives a commit that found no room its name, if nothing of it can have
// reached the file's structure: a write that was refused, not a flush.
func roomless(err error) error {
	var write *fs.PathError
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	if errors.As(err, &write) {
		return classify(err)
	}
	return err
}

// catch turns a panic of bbolt, or a page that the disk could not deliver, into
// a *damage. Deferred around everything that touches a mapped file, and around
// no caller's code.
func catch(err *error) {
	if p := recover(); p != nil {
		*err = &damage{what: fmt.Sprint(p)}
	}
}

// faults makes an unreadable page of a mapped file a panic of this goroutine
// instead of the end of the process, until the func it returns is called.
func faults() func() {
	old := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(old) }
}
