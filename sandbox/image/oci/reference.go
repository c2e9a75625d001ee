package oci

import (
	"regexp"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Reference names an image in a registry, as people and manifests write it. Docker's short forms are filled in.
type Reference struct {
	Host   string // of the registry, with a port if it has one
	Path   string // of the repository
	Tag    string // "" only with a Digest
	Digest Digest // of a manifest or an index; zero = by tag
}

const (
	dockerHost = "docker.io"
	maxRef     = 512
)

var (
	hostForm = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)
	pathForm = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$`)
)

// ParseReference reads [host[:port]/]path[:tag][@sha256:…]. Without a host it is Docker's registry, without tag and digest it is the
// tag latest. The first name is a host if it has a dot or a colon in it, or is localhost.
func ParseReference(text string) (Reference, error) {
	wrong := func(why string) (Reference, error) {
		return Reference{}, bundle.Reject(bundle.ErrReference, "image %.200q: %s: want host/path:tag or host/path@sha256:…", text, why)
	}
	if len(text) > maxRef {
		return wrong("too long")
	}
	var r Reference
	rest, digits, pinned := strings.Cut(text, "@")
	if pinned {
		d, err := bundle.ParseDigest(digits)
		if err != nil {
			return wrong("the digest is not sha256: and 64 lower-case hexadecimal digits")
		}
		r.Digest = d
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, r.Tag = rest[:i], rest[i+1:]
		if !tagForm.MatchString(r.Tag) {
			return wrong("the tag is none")
		}
	} else if !pinned {
		r.Tag = "latest"
	}
	r.Host, r.Path = dockerHost, rest
	if first, below, more := strings.Cut(rest, "/"); more && (strings.ContainsAny(first, ".:") || first == "localhost") {
		r.Host, r.Path = first, below
	}
	if r.Host == "index.docker.io" {
		r.Host = dockerHost
	}
	if r.Host == dockerHost && !strings.Contains(r.Path, "/") {
		r.Path = "library/" + r.Path
	}
	switch {
	case !hostForm.MatchString(r.Host):
		return wrong("the registry's host is none")
	case !pathForm.MatchString(r.Path):
		return wrong("the repository is none; it has lower-case letters, digits and . _ - /")
	}
	return r, nil
}

// String is the full form.
func (r Reference) String() string {
	s := r.Repository()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if !r.Digest.IsZero() {
		s += "@" + r.Digest.String()
	}
	return s
}

// Repository is host and path.
func (r Reference) Repository() string { return r.Host + "/" + r.Path }
