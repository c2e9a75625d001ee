package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// OCI is what an image that came from a registry or an archive says beyond a bundle's manifest.
type OCI struct {
	Names    []string      `json:"names"`           // full references by tag
	Index    bundle.Digest `json:"index,omitzero"`  // that it was chosen from
	Loaded   bool          `json:"loaded,omitzero"` // from an archive: its names count without asking a registry
	Kept     bool          `json:"kept,omitzero"`   // put here by an operator: not collected while it has a name
	Signer   string        `json:"signer,omitzero"` // file of the key whose signature was checked
	Config   oci.Config    `json:"config"`
	Stripped oci.Stripped  `json:"stripped,omitzero"`
}

// ociFile is an {digest}.oci: what makes a merged image an installed one.
type ociFile struct {
	Version int           `json:"version"` // 1
	Digest  bundle.Digest `json:"digest"`  // of the manifest
	Image   struct {
		Digest bundle.Digest `json:"digest"`
		Verity bundle.Digest `json:"verity"`
		Size   uint64        `json:"size"`
	} `json:"image"`
	OCI
}

const (
	ociVersion = 1
	ociSuffix  = ".oci"
	ociLimit   = 4 << 20 // bytes: a config has 1 MiB at most
)

func (s *Store) ociPath(d bundle.Digest) string { return filepath.Join(s.blobs(), d.Hex()+ociSuffix) }

// forget removes what makes an image an installed one.
func (s *Store) forget(d bundle.Digest) error {
	return errors.Join(removeIfThere(s.metaPath(d)), removeIfThere(s.ociPath(d)))
}

// record is an .oci as the store keeps it.
func (f ociFile) record(at time.Time) record {
	r := record{Image: Image{Digest: f.Digest, Name: f.Digest.String(), Kind: bundle.KindModule, Size: int64(f.Image.Size), Installed: at, OCI: &f.OCI}}
	r.manifest.Image = bundle.ImageInfo{Format: bundle.FormatEROFS, Size: f.Image.Size, Digest: f.Image.Digest, Verity: f.Image.Verity}
	if len(f.Names) > 0 {
		if ref, err := oci.ParseReference(f.Names[0]); err == nil {
			r.Name, r.Version = ref.Repository(), ref.Tag
		}
	}
	return r
}

// file is the record as it is written.
func (r record) ociFile() ociFile {
	f := ociFile{Version: ociVersion, Digest: r.Digest, OCI: *r.OCI}
	f.Image.Digest, f.Image.Verity, f.Image.Size = r.manifest.Image.Digest, r.manifest.Image.Verity, r.manifest.Image.Size
	return f
}

func readOCI(path string) (record, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return record{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return record{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, ociLimit))
	if err != nil {
		return record{}, err
	}
	of, err := parseOCI(text)
	if err != nil {
		return record{}, err
	}
	if filepath.Base(path) != of.Digest.Hex()+ociSuffix {
		return record{}, fmt.Errorf("holds image %v, want its own name", of.Digest)
	}
	return of.record(info.ModTime()), nil
}

func parseOCI(text []byte) (ociFile, error) {
	var f ociFile
	if err := json.Unmarshal(text, &f); err != nil {
		return f, err
	}
	if f.Version != ociVersion || f.Digest.IsZero() || f.Image.Digest.IsZero() {
		return f, fmt.Errorf("version %d, want %d", f.Version, ociVersion)
	}
	return f, nil
}

// keepOCILocked writes the record of an image, takes its names from the others, and so makes it an installed one.
func (s *Store) keepOCILocked(r record) (Image, error) {
	for digest, other := range s.records {
		if other.OCI == nil || digest == r.Digest {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(other.OCI.Names), func(name string) bool { return slices.Contains(r.OCI.Names, name) })
		if len(left) == len(other.OCI.Names) {
			continue
		}
		changed := *other.OCI
		changed.Names, other.OCI = left, &changed
		if err := s.writeOCILocked(other); err != nil {
			return Image{}, err
		}
	}
	if err := s.writeOCILocked(r); err != nil {
		return Image{}, err
	}
	return s.records[r.Digest].Image, nil
}

func (s *Store) writeOCILocked(r record) error {
	f := r.ociFile()
	text, err := json.MarshalIndent(f, "", "\t")
	if err == nil {
		err = s.replaceFile("record", s.ociPath(r.Digest), text)
	}
	if err != nil {
		return diskError("keep image", err)
	}
	s.records[r.Digest] = f.record(r.Installed)
	return nil
}

// renamed gives an installed image more names.
func (s *Store) renamed(digest bundle.Digest, about OCI) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[digest]
	if !ok || r.OCI == nil {
		return Image{}, bundle.Reject(bundle.ErrAbsent, "image %v was removed in between: try again", digest)
	}
	changed := *r.OCI
	changed.Names = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(about.Names), changed.Names...))))
	sort.SliceStable(changed.Names, func(i, j int) bool {
		return lateness(changed.Names[i], about.Names) < lateness(changed.Names[j], about.Names)
	})
	changed.Loaded, changed.Kept = changed.Loaded || about.Loaded, changed.Kept || about.Kept
	changed.Signer = cmp.Or(about.Signer, changed.Signer)
	r.OCI = &changed
	return s.keepOCILocked(r)
}

// lateness puts the names that were just given first.
func lateness(name string, given []string) int {
	if slices.Contains(given, name) {
		return 0
	}
	return 1
}

// Named finds an installed image by an OCI reference: by digest, of its manifest or of the index it came from, else by tag.
func (s *Store) Named(ref string) (Image, bool) {
	r, err := oci.ParseReference(ref)
	if err != nil {
		return Image{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range s.records {
		switch {
		case rec.OCI == nil:
		case !r.Digest.IsZero():
			if rec.Digest == r.Digest || rec.OCI.Index == r.Digest {
				return rec.Image, true
			}
		case slices.Contains(rec.OCI.Names, r.String()):
			return rec.Image, true
		}
	}
	return Image{}, false
}

// ErrNoUser says that an image has no such user or group.
var ErrNoUser = errors.New("the image has no such user or group")

// CheckUser looks the names in a user setting up in the image's own files; numbers are always right. It reads two files of the image
// and nothing else.
func (s *Store) CheckUser(img Image, user string) error {
	name, group, _ := strings.Cut(user, ":")
	r, err := s.record(img.Digest)
	if err != nil {
		return err
	}
	f, err := openSealed(s.imagePath(r.manifest.Image.Digest))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	fsys, _, err := bundle.OpenImage(f, r.Size)
	if err != nil {
		return err
	}
	for file, want := range map[string]string{"etc/passwd": name, "etc/group": group} {
		if want == "" || strings.Trim(want, "0123456789") == "" {
			continue
		}
		if !listed(fsys, file, want) {
			return fmt.Errorf("%w: %q is not in its /%s", ErrNoUser, want, file)
		}
	}
	return nil
}

// listed tells whether a file of accounts has a line for the name.
func listed(fsys fs.FS, file, name string) bool {
	const most = 1 << 20 // bytes
	f, err := fsys.Open(file)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if first, _, ok := strings.Cut(line, ":"); ok && first == name {
			return true
		}
	}
	return false
}
