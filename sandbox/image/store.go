package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// Config of a Store. Dir and MountDir are needed; everything else has a default.
type Config struct {
	Dir      string                      // what must survive a power cut
	MountDir string                      // where images are mounted, on a tmpfs
	Trusted  []bundle.PublicKey          // signers; none = nothing can be installed
	HTTP     *http.Client                // for https:// references; default: the system's roots, 30 s to the first byte of an answer
	Logger   *slog.Logger                // default: discard
	MaxBytes int64                       // all images together; 0 = only the disk's size counts
	Reserve  int64                       // bytes of the disk to leave free; default the larger of 32 MiB and 5 %
	Class    string                      // the device class; bundles for other classes are refused. Default: only bundles for all
	Machine  Machine                     // default: this machine
	Agent    uint64                      // this agent's own sequence, for bundles that need a newer one; 0 = not compared
	Now      func() time.Time            // for expiry; default time.Now
	Stall    time.Duration               // an https:// transfer that brings less than 1 KiB/s for so long is cut; default 60 s
	OCI      oci.ClientConfig            // how registries are spoken to
	Policies []Policy                    // whose signatures images of registries must have
	Retry    func(try int) time.Duration // pause before a transfer goes on, try counts from 1; default 1 s doubling to 1 min, with jitter
	Mirrors  Mirrors                     // where else bundles may be had
	Rate     int64                       // bytes per second of all https:// transfers; 0 = as fast as it goes
	Metered  []string                    // names of interfaces whose traffic costs, "*" = all; default none
	Monthly  int64                       // bytes per month over metered interfaces; 0 = no bound

	hook      func(step string) error // before each durable step, for tests: an error is the step's
	syncEvery int64                   // bytes that a power cut may take from a transfer; default 4 MiB
}

const (
	defaultStall = time.Minute
	minReserve   = 32 << 20
	dirMode      = 0o700
)

func (c Config) withDefaults() Config {
	if c.HTTP == nil {
		c.HTTP = oci.HTTPClient(nil)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Machine.Arch == nil {
		c.Machine = ThisMachine()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Retry == nil {
		c.Retry = backoff
	}
	c.Stall = cmp.Or(c.Stall, defaultStall)
	c.syncEvery = cmp.Or(c.syncEvery, defaultSyncEvery)
	c.OCI.Stall = cmp.Or(c.OCI.Stall, c.Stall)
	if c.OCI.Logger == nil {
		c.OCI.Logger = c.Logger
	}
	return c
}

// Image is an installed bundle.
type Image struct {
	Digest    bundle.Digest // the bundle's identity: the SHA-256 of its signed manifest
	Name      string        // of the module
	Version   string        // for people
	Sequence  uint64
	Kind      bundle.Kind
	Runtime   bundle.Runtime // how it starts; no Args when the bundle does not say
	Size      int64          // bytes of the image
	Signer    bundle.KeyID   // whose signature was checked at installation
	Installed time.Time
	OCI       *OCI // of an image that is no bundle, nil of one that is
}

// record is an installed bundle with what it takes to mount it.
type record struct {
	Image
	manifest bundle.Manifest
	envelope bundle.Envelope
}

// Store keeps the images of one device. Its methods may be called from any goroutine.
type Store struct {
	cfg      Config
	lock     *os.File
	fetching chan struct{} // holds one token: whoever has it may fetch
	mounting chan struct{} // the same for mounting, unmounting and collecting
	backings []backing     // ways to mount, best first
	meter    *meter

	registries *oci.Client

	mu      sync.Mutex // guards the fields below and every change under blobs
	records map[bundle.Digest]record
	floors  floors
	notes   notes
	closed  bool
	now     *Progress // of the fetch that runs
}

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("the image store is closed")

// Open locks the directory, makes it when it is not there, and reads what is installed. A damaged .spm is reported in the log
// and counts as not installed.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if cfg.Dir == "" || cfg.MountDir == "" {
		return nil, errors.New("open image store: no directory configured")
	}
	s := &Store{
		cfg:      cfg,
		fetching: make(chan struct{}, 1),
		mounting: make(chan struct{}, 1),
		backings: []backing{fileBacked, loopBacked},
		records:  make(map[bundle.Digest]record),
	}
	for _, dir := range []string{cfg.Dir, s.blobs(), s.stage()} {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	err := os.MkdirAll(cfg.MountDir, pointMode)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if s.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if s.floors, err = readFloors(s.floorsPath()); err == nil {
		err = errors.Join(s.load(metaSuffix, readMeta), s.load(ociSuffix, readOCI))
	}
	var lost error
	if s.notes, lost = readNotes(s.notesPath()); lost != nil {
		cfg.Logger.Warn("notes about images are lost: pins, ways back, and where images came from", "err", lost)
	}
	s.meter = newMeter(cfg, s.meteredPath(), func(text []byte) error { return s.replaceFile("count", s.meteredPath(), text) })
	cfg.OCI.Body = s.throttled
	s.registries = oci.NewClient(cfg.OCI)
	if err != nil {
		_ = unlock(s.lock)
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return s, nil
}

// Close unlocks the directory after running calls have ended. Mounts stay: modules run on.
func (s *Store) Close() error {
	s.fetching <- struct{}{}
	defer func() { <-s.fetching }()
	s.mounting <- struct{}{}
	defer func() { <-s.mounting }()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return unlock(s.lock)
}

// List returns what is installed, by name and then sequence.
func (s *Store) List() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Image, 0, len(s.records))
	for _, r := range s.records {
		list = append(list, r.Image)
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Sequence, b.Sequence), bytes.Compare(a.Digest[:], b.Digest[:])) < 0
	})
	return list
}

// Lookup returns the installed bundle with the digest.
func (s *Store) Lookup(digest bundle.Digest) (Image, bool) {
	r, err := s.record(digest)
	return r.Image, err == nil
}

func (s *Store) record(digest bundle.Digest) (record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return record{}, ErrClosed
	}
	r, ok := s.records[digest]
	if !ok {
		return record{}, absent(digest)
	}
	return r, nil
}

func absent(digest bundle.Digest) error {
	return bundle.Reject(bundle.ErrAbsent, "bundle %v is not on this device: give its https:// or file:// URL", digest)
}

// anything reports whether a bundle is installed, or a transfer was begun: then a new one may need less than all of its chunks.
func (s *Store) anything() bool {
	s.mu.Lock()
	n := len(s.records)
	s.mu.Unlock()
	if n > 0 {
		return true
	}
	parts, err := filepath.Glob(s.stagePath("*" + partSuffix))
	return err == nil && len(parts) > 0
}

// load reads what is installed: every file of that suffix whose image is there.
func (s *Store) load(suffix string, read func(path string) (record, error)) error {
	names, err := filepath.Glob(filepath.Join(s.blobs(), "*"+suffix))
	if err != nil {
		return err
	}
	for _, name := range names {
		r, err := read(name)
		if err == nil {
			err = s.imageThere(r)
		}
		if err != nil {
			s.cfg.Logger.Warn("installed image is damaged and will be fetched again", "image", filepath.Base(name), "err", err)
			continue
		}
		s.records[r.Digest] = r
	}
	return nil
}

func (s *Store) imageThere(r record) error {
	info, err := os.Lstat(s.imagePath(r.manifest.Image.Digest))
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() != r.Size:
		return fmt.Errorf("image file: %v of %d bytes, want a file of %d", info.Mode().Type(), info.Size(), r.Size)
	}
	return nil
}

// readMeta reads a .spm. Its name is the digest of the manifest in it, whose signature was checked when it was installed.
func readMeta(path string) (record, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return record{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return record{}, err
	}
	head, err := bundle.ReadHeadUnverified(f)
	if err != nil {
		return record{}, err
	}
	if want := head.Digest.Hex() + metaSuffix; filepath.Base(path) != want || info.Size() != head.Header.PayloadOffset() {
		return record{}, fmt.Errorf("file of %d bytes holds manifest %v, want %d bytes and its own name", info.Size(), head.Digest, head.Header.PayloadOffset())
	}
	return newRecord(head, info.ModTime()), nil
}

func newRecord(head bundle.Head, at time.Time) record {
	m := head.Manifest
	r := record{
		Image: Image{
			Digest: head.Digest, Name: m.Name, Version: m.Version, Sequence: m.Sequence, Kind: m.Kind,
			Size: int64(m.Image.Size), Installed: at,
		},
		manifest: m,
		envelope: head.Envelope,
	}
	if m.Runtime != nil {
		r.Runtime = *m.Runtime
	}
	r.Signer, _, _ = head.Envelope.Signer()
	return r
}

// Names of what stands in the directory.
const (
	metaSuffix  = ".spm"
	imageSuffix = ".img"
	partSuffix  = ".part"
	newSuffix   = ".new"
)

func (s *Store) blobs() string      { return filepath.Join(s.cfg.Dir, "blobs") }
func (s *Store) stage() string      { return filepath.Join(s.cfg.Dir, "stage") }
func (s *Store) floorsPath() string { return filepath.Join(s.cfg.Dir, "floors.json") }

func (s *Store) meteredPath() string { return filepath.Join(s.cfg.Dir, "metered.json") }

func (s *Store) stagePath(name string) string { return filepath.Join(s.stage(), name) }

func (s *Store) imagePath(d bundle.Digest) string {
	return filepath.Join(s.blobs(), d.Hex()+imageSuffix)
}

func (s *Store) metaPath(d bundle.Digest) string { return filepath.Join(s.blobs(), d.Hex()+metaSuffix) }

// acquire takes the token of a one-at-a-time activity.
func acquire(ctx context.Context, token chan struct{}) error {
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
