package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// Fetch installs the bundle that ref names and returns it. digest, when not empty, is the one identity that is accepted. What is
// already installed is returned at once, after its signer was found still trusted; nothing is transferred for a digest that is
// here. The signature is checked before anything else is believed, all policy before a payload byte is read, each chunk when it
// arrives, and the whole image once it is on disk. An https:// transfer that is cut goes on where it was, and so does the next
// Fetch after this one was ended.
//
// progress, when not nil, is called from this goroutine at most once per chunk. A refusal is a *bundle.Error in the chain.
func (s *Store) Fetch(ctx context.Context, ref, digest string, progress func(Progress)) (Image, error) {
	img, err := s.fetch(ctx, ref, digest, progress)
	if err != nil {
		return Image{}, fmt.Errorf("fetch %q: %w", withoutCredentials(ref), err)
	}
	return img, nil
}

func (s *Store) fetch(ctx context.Context, ref, digest string, progress func(Progress)) (Image, error) {
	if isOCI(ref) {
		return s.fetchOCI(ctx, ref, digest, progress)
	}
	r, err := parseReference(ref)
	if err != nil {
		return Image{}, err
	}
	want := r.present
	if digest != "" {
		d, err := bundle.ParseDigest(digest)
		if err != nil {
			return Image{}, &bundle.Error{Code: bundle.ErrReference, Why: err.Error(), Err: err}
		}
		if !want.IsZero() && want != d {
			return Image{}, bundle.Reject(bundle.ErrReference, "the reference and the digest %v name different bundles: correct one", d)
		}
		want = d
	}
	if !want.IsZero() {
		img, err := s.present(want)
		if err == nil || !errors.Is(err, bundle.ErrAbsent) || !r.present.IsZero() {
			return img, err
		}
	}
	if err := acquire(ctx, s.fetching); err != nil {
		return Image{}, err
	}
	defer func() { <-s.fetching }()
	t := &transfer{store: s, reference: ref, want: want, src: s.mirrors(r), report: progress}
	defer t.end()
	return t.run(ctx)
}

// present returns an installed bundle whose signer is still trusted.
func (s *Store) present(digest bundle.Digest) (Image, error) {
	r, err := s.record(digest)
	if err != nil {
		return Image{}, err
	}
	if r.OCI != nil {
		return r.Image, s.trustOCI(r)
	}
	_, _, err = r.envelope.Open(s.cfg.Trusted)
	return r.Image, err
}

// backoff is the default pause: 1 s doubling to a minute, half of it random.
func backoff(try int) time.Duration {
	full := min(time.Second<<min(try-1, 6), time.Minute)
	return full/2 + rand.N(full/2)
}
