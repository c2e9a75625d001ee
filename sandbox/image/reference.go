package image

import (
	"net/url"
	"path"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// reference is a parsed place that a bundle comes from: exactly one field is set.
type reference struct {
	url     *url.URL      // https
	file    string        // absolute path
	present bundle.Digest // of a bundle that must be here
}

const useInstead = "use an https:// or file:// URL of a bundle, or bundle:sha256:… for one already installed"

// parseReference reads a deployment's image setting. It names what is wrong, and never quotes a password.
func parseReference(ref string) (reference, error) {
	if digits, ok := strings.CutPrefix(ref, "bundle:"); ok {
		d, err := bundle.ParseDigest(digits)
		if err != nil {
			return reference{}, bundle.Reject(bundle.ErrReference, "reference %q: want bundle:sha256: and 64 lower-case hexadecimal digits", ref)
		}
		return reference{present: d}, nil
	}
	u, err := url.Parse(ref)
	scheme, _, isURL := strings.Cut(ref, "://")
	switch {
	case !isURL:
		return reference{}, bundle.Reject(bundle.ErrReference, "%q names an OCI image where a bundle is wanted: %s", ref, useInstead)
	case err != nil || strings.ContainsAny(ref, "\x00\r\n"):
		return reference{}, bundle.Reject(bundle.ErrReference, "the reference is no valid URL: %s", useInstead)
	case u.User != nil:
		return reference{}, bundle.Reject(bundle.ErrReference, "the URL on %s holds credentials, which would stand in twins and logs: serve bundles without them, their signature protects them", u.Host)
	case scheme == "https" && u.Host != "":
		u.Fragment = ""
		return reference{url: u}, nil
	case scheme == "file" && (u.Host == "" || u.Host == "localhost") && path.IsAbs(u.Path) && u.RawQuery == "" && u.Fragment == "":
		return reference{file: path.Clean(u.Path)}, nil
	}
	return reference{}, bundle.Reject(bundle.ErrReference, "reference %q: %s", ref, useInstead)
}

// withoutCredentials is the reference as it may stand in a log.
func withoutCredentials(ref string) string {
	scheme, rest, ok := strings.Cut(ref, "://")
	if !ok {
		return ref
	}
	host, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host, tail = rest[:i], rest[i:]
	}
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	return scheme + "://" + host + tail
}
