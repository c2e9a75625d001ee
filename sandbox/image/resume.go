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

	prefix []byte
}

const (
	resumeVersion = 1
	resumeLine    = 4 << 10 // bytes
	resumeSuffix  = ".head"
)

func (s *Store) resumePath(image bundle.Digest) string {
	return filepath.Join(s.stage(), image.Hex()+resumeSuffix)
}

func (s *Store) writeResume(image bundle.Digest, r resume) error {
	r.Version = resumeVersion
	line, err := json.Marshal(r)
	if err != nil || len(line) >= resumeLine {
		return err // a reference of 4 KiB: the start is read again
	}
	return s.replaceFile("resume", s.resumePath(image), append(append(line, '\n'), r.prefix...))
}

// readResume reads one file. What it holds is not checked yet.
func readResume(path string) (resume, bundle.Head, bundle.Index, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return resume{}, bundle.Head{}, nil, err
	}
	defer func() { _ = f.Close() }()
	return parseResume(bufio.NewReaderSize(f, resumeLine))
}

func parseResume(in *bufio.Reader) (r resume, head bundle.Head, index bundle.Index, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return r, head, nil, fmt.Errorf("first line: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, head, nil, err
	}
	if r.Version != resumeVersion {
		return r, head, nil, fmt.Errorf("version %d, want %d", r.Version, resumeVersion)
	}
	if head, err = bundle.ReadHeadUnverified(in); err != nil {
		return r, head, nil, err
	}
	if index, err = head.ReadIndex(in); err != nil {
		return r, head, nil, err
	}
	r.prefix = bundle.AppendPrefix(nil, head.Envelope, index)
	return r, head, index, nil
}

// errNoResume says that no transfer of the bundle was begun.
var errNoResume = errors.New("nothing to resume")

// findResume looks for a transfer that may go on: of the wanted bundle, or from the same place while the file there can be told from
// another.
func (s *Store) findResume(reference string, want bundle.Digest) (resume, bundle.Head, bundle.Index, error) {
	names, err := filepath.Glob(filepath.Join(s.stage(), "*"+resumeSuffix))
	if err != nil {
		return resume{}, bundle.Head{}, nil, err
	}
	for _, name := range names {
		r, head, index, err := readResume(name)
		if err != nil {
			_ = os.Remove(name) // of no use to anybody
			continue
		}
		same := r.Reference == reference
		if (same && want.IsZero() && r.Validator != "") || (!want.IsZero() && head.Digest == want) {
			if !same {
				r.Validator = ""
			}
			m, key, err := head.Envelope.Open(s.cfg.Trusted)
			if err != nil {
				return resume{}, bundle.Head{}, nil, errNoResume
			}
			head.Manifest, head.Signer = m, key
			return r, head, index, nil
		}
	}
	return resume{}, bundle.Head{}, nil, errNoResume
}
