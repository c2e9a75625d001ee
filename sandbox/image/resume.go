package image

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// resume is what is kept of a transfer beside its part file, so that the next agent goes on without reading the bundle's start
// again. On disk it is a line of JSON, and behind it everything of the bundle that precedes its payload. Nothing in it is believed:
// signature and policy are checked as if it had just arrived.
type resume struct {
	Version   int    `json:"version"` // 1
	Reference string `json:"reference"`
	Validator string `json:"validator,omitempty"` // of the file there
	Delta     string `json:"delta,omitempty"`     // name and validator of the delta that is in the stage
	NoDelta   bool   `json:"noDelta,omitempty"`   // a delta was there and did not do
	Bare      bool   `json:"bare,omitempty"`      // the index was not fetched: a delta may bring what it says

	head  bundle.Head
	index bundle.Index
}

const (
	resumeVersion = 1
	resumeLine    = 4 << 10 // bytes
	resumeSuffix  = ".head"
)

func (s *Store) resumePath(image bundle.Digest) string {
	return filepath.Join(s.stage(), image.Hex()+resumeSuffix)
}

func (s *Store) writeResume(r *resume) error {
	r.Version = resumeVersion
	line, err := json.Marshal(r)
	if err != nil || len(line) >= resumeLine {
		return err // a reference of 4 KiB: the start is read again
	}
	text := append(line, '\n')
	if r.Bare {
		text = append(r.head.Header.Append(text), r.head.Envelope.Encode()...)
	} else {
		text = bundle.AppendPrefix(text, r.head.Envelope, r.index)
	}
	return s.replaceFile("resume", s.resumePath(r.head.Manifest.Image.Digest), text)
}

// readResume reads one file. What it holds is not checked yet.
func readResume(path string) (*resume, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return parseResume(bufio.NewReaderSize(f, resumeLine))
}

func parseResume(in *bufio.Reader) (*resume, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("first line: %w", err)
	}
	r := new(resume)
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, err
	}
	if r.Version != resumeVersion {
		return nil, fmt.Errorf("version %d, want %d", r.Version, resumeVersion)
	}
	if r.head, err = bundle.ReadHeadUnverified(in); err != nil {
		return nil, err
	}
	if !r.Bare {
		r.index, err = r.head.ReadIndex(in)
	}
	return r, err
}

// errNoResume says that no transfer of the bundle was begun.
var errNoResume = errors.New("nothing to resume")

// findResume looks for a transfer that may go on: of the wanted bundle, or from the same place while the file there can be told from
// another.
func (s *Store) findResume(reference string, want bundle.Digest) (*resume, error) {
	names, err := filepath.Glob(s.stagePath("*" + resumeSuffix))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r, err := readResume(name)
		if err != nil {
			_ = os.Remove(name) // of no use to anybody
			continue
		}
		same := r.Reference == reference
		if (same && want.IsZero() && r.Validator != "") || (!want.IsZero() && r.head.Digest == want) {
			if !same {
				r.Validator = ""
			}
			r.head.Manifest, r.head.Signer, err = r.head.Envelope.Open(s.cfg.Trusted)
			return r, err
		}
	}
	return nil, errNoResume
}
