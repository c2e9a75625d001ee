package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/oci"
)

// Policy says whose signature an image of some registries must have. The longest prefix counts; where none does, none is asked for.
type Policy struct {
	Prefix string    // host[:port][/path] that references begin with
	Keys   []oci.Key // one of them must have signed; none = no signature is asked for
}

// blobSuffix ends the name of a layer that arrives, or waits for the others.
const blobSuffix = ".blob"

// isOCI tells an OCI reference from what names a bundle.
func isOCI(ref string) bool {
	return ref != "" && !strings.Contains(ref, "://") && !strings.HasPrefix(ref, "bundle:")
}

// Hold keeps an image under its names until it loses them, whether a module needs it or not.
func (s *Store) Hold(img Image) (Image, error) {
	if img.OCI == nil {
		return img, nil
	}
	return s.renamed(img.Digest, OCI{Names: img.OCI.Names, Kept: true})
}

// fetchOCI installs the image that an OCI reference names. A tag is resolved at the registry unless an archive brought an image of that name; a
// registry that cannot be reached leaves what is here under that name.
func (s *Store) fetchOCI(ctx context.Context, ref, digest string, progress func(Progress)) (Image, error) {
	r, err := oci.ParseReference(ref)
	if err != nil {
		return Image{}, err
	}
	if digest != "" {
		d, err := bundle.ParseDigest(digest)
		if err != nil {
			return Image{}, &bundle.Error{Code: bundle.ErrReference, Why: err.Error(), Err: err}
		}
		if !r.Digest.IsZero() && r.Digest != d {
			return Image{}, bundle.Reject(bundle.ErrReference, "the reference and the digest %v name different images: correct one", d)
		}
		r.Digest = d
	}
	here, known := s.Named(r.String())
	if known && (!r.Digest.IsZero() || here.OCI.Loaded) {
		return s.present(here.Digest)
	}
	if err := acquire(ctx, s.fetching); err != nil {
		return Image{}, err
	}
	defer func() { <-s.fetching }()
	defer s.progressed(nil)
	img, err := s.pull(ctx, r, s.tracked(r, progress))
	if known && errors.Is(err, oci.ErrConnection) && ctx.Err() == nil {
		s.cfg.Logger.Warn("registry cannot be reached, the image of that name here is used", "image", r.String(), "err", err)
		return s.present(here.Digest)
	}
	return img, err
}

// tracked has the progress of a pull seen by status too.
func (s *Store) tracked(r oci.Reference, progress func(Progress)) func(Progress) {
	var pace progressMeter
	return func(p Progress) {
		p.Reference, p.Received = r.String(), p.Done
		if p.Phase == PhaseTransfer {
			p.Rate = pace.pace(time.Now(), p.Done)
		}
		if p.Rate > 0 && p.Total > p.Done {
			p.Left = time.Duration(float64(p.Total-p.Done) / float64(p.Rate) * float64(time.Second)).Round(time.Second)
		}
		s.progressed(&p)
		if progress != nil {
			progress(p)
		}
	}
}

// throttled holds a body from a registry to the rate and the month's bound that bundles have too.
func (s *Store) throttled(ctx context.Context, host string, body io.Reader) (io.Reader, error) {
	p, err := s.meter.pass(ctx, &url.URL{Host: host})
	if err != nil {
		return nil, err
	}
	return &throttled{body, ctx, p}, nil
}

type throttled struct {
	io.Reader

	ctx  context.Context //nolint:containedctx // lives for one body
	pass *pass
}

func (t *throttled) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	if n > 0 {
		if terr := t.pass.took(t.ctx, n); terr != nil {
			t.pass.done()
			return n, terr
		}
	}
	if err != nil {
		t.pass.done()
	}
	return n, err
}

func (s *Store) pull(ctx context.Context, r oci.Reference, progress func(Progress)) (Image, error) {
	progress(Progress{Phase: PhaseCheck, Image: r.String()})
	here := func(d bundle.Digest) bool {
		rec, err := s.record(d)
		return err == nil && rec.OCI != nil
	}
	var p oci.Pull
	err := s.persist(ctx, r, func() (err error) {
		p, err = s.registries.Resolve(ctx, r, s.cfg.Machine.oci(), s.layerLimit(), here)
		return err
	})
	if err != nil {
		return Image{}, err
	}
	signer, err := s.signed(ctx, r, p.Image)
	if err != nil {
		return Image{}, err
	}
	names := []string{}
	if r.Tag != "" {
		named := r
		named.Digest = bundle.Digest{}
		names = append(names, named.String())
	}
	if here(p.Image.Digest) {
		img, err := s.renamed(p.Image.Digest, OCI{Names: names, Signer: signer})
		if err == nil {
			s.cameFrom(img.Digest, r)
		}
		return img, err
	}
	if err := s.admitSpace(p.Manifest.Size(), p.Manifest.Size()); err != nil { // as far as the configuration decides
		return Image{}, err
	}
	if err := s.pullLayers(ctx, r, p, progress); err != nil {
		return Image{}, err
	}
	img, err := s.installOCI(ctx, p.Image, OCI{Names: names, Signer: signer}, progress)
	if err == nil || bundle.CodeOf(err).Final() {
		s.dropLayers(p)
	}
	if err == nil {
		s.cameFrom(img.Digest, r)
	}
	return img, err
}

// dropLayers removes what pullLayers brought.
func (s *Store) dropLayers(p oci.Pull) {
	for _, l := range p.Manifest.Layers {
		_ = os.Remove(s.blobPath(l.Digest)) // what stays is swept after a week
	}
}

// cameFrom notes the repository that an image was pulled from.
func (s *Store) cameFrom(d bundle.Digest, r oci.Reference) {
	r.Tag, r.Digest = "", d
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cameFromLocked(d, r.String())
}

func (s *Store) blobPath(d bundle.Digest) string {
	return filepath.Join(s.stage(), d.Hex()+blobSuffix)
}

// persist tries again while a registry cannot be reached, a few times.
func (s *Store) persist(ctx context.Context, r oci.Reference, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil || !errors.Is(err, oci.ErrConnection) || try == maxIdle || ctx.Err() != nil {
			return err
		}
		s.cfg.Logger.Info("registry is asked again", "image", r.String(), "err", err)
		if err := pause(ctx, s.cfg.Retry(try)); err != nil {
			return err
		}
	}
}

// pullLayers has every layer in the stage, whole and compared with its digest, and tells the image where.
func (s *Store) pullLayers(ctx context.Context, r oci.Reference, p oci.Pull, progress func(Progress)) error {
	var had int64
	for _, l := range p.Manifest.Layers {
		if info, err := os.Lstat(s.blobPath(l.Digest)); err == nil {
			had += min(info.Size(), l.Size)
		}
	}
	total := p.Manifest.Size()
	if err := s.onDisk(2*total, had); err != nil { // the layers, and the image that they become, which is hardly smaller
		return err
	}
	done := p.Manifest.Config.Size
	for i, l := range p.Manifest.Layers {
		b := &blob{store: s, from: r, desc: l, report: func(n int64) {
			progress(Progress{Phase: PhaseTransfer, Image: r.String(), Done: done + n, Total: total})
		}}
		if err := b.fetch(ctx); err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(p.Manifest.Layers), err)
		}
		done += l.Size
		path := s.blobPath(l.Digest)
		p.Image.Layers[i].Open = func() (io.ReadCloser, error) { return openSealed(path) }
	}
	return nil
}

// blob is one layer on its way into the stage.
type blob struct {
	store  *Store
	from   oci.Reference
	desc   oci.Descriptor
	report func(n int64)

	file *os.File
	have int64 // bytes in the file
}

// fetch brings what is missing, over as many connections as it takes. What an earlier fetch left is kept: the digest at the end decides.
func (b *blob) fetch(ctx context.Context) error {
	err := b.store.step("open layer")
	var f *os.File
	if err == nil {
		f, err = openOwn(b.store.blobPath(b.desc.Digest))
	}
	if err != nil {
		return diskError("open stage", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open stage: %w", err)
	}
	b.file, b.have = f, info.Size()
	if b.have > b.desc.Size {
		b.have = 0
	}
	again := b.have > 0
	for idle := 1; ; idle++ {
		before := b.have
		if err = b.receive(ctx); err == nil {
			if err = b.check(ctx); err == nil {
				return nil
			}
			b.have = 0
			if !again { // nothing of an earlier fetch was in it
				return err
			}
			again = false
		}
		if b.have > before {
			idle = 1
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !oci.IsTransient(err) && bundle.CodeOf(err) != bundle.ErrDigest || idle >= maxIdle {
			return err
		}
		b.store.cfg.Logger.Info("transfer of a layer was cut and goes on", "image", b.from.String(), "have", b.have, "of", b.desc.Size, "err", err)
		if err := pause(ctx, b.store.cfg.Retry(idle)); err != nil {
			return err
		}
	}
}

// receive asks for the rest and writes it as it comes.
func (b *blob) receive(ctx context.Context) error {
	if b.have == b.desc.Size {
		return nil
	}
	body, start, err := b.store.registries.Blob(ctx, b.from, b.desc, b.have)
	if err != nil {
		if errors.Is(err, bundle.ErrChanged) {
			b.have = 0
		}
		return err
	}
	defer func() { _ = body.Close() }()
	b.have = start
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 && b.have+int64(n) > b.desc.Size {
			return bundle.Reject(bundle.ErrTransfer, "%s sends more than the %d bytes of layer %v", b.from.Host, b.desc.Size, b.desc.Digest)
		}
		if n > 0 {
			err := b.store.step("write layer")
			if err == nil {
				_, err = b.file.WriteAt(buf[:n], b.have)
			}
			if err != nil {
				return diskError("write stage", err)
			}
			b.have += int64(n)
			b.report(b.have)
		}
		switch {
		case errors.Is(err, io.EOF) && b.have == b.desc.Size:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%w: the layer ends after %d of %d bytes", oci.ErrConnection, b.have, b.desc.Size)
		case err != nil:
			return err
		}
	}
}

// check compares the file with the digest, and with nothing behind it.
func (b *blob) check(ctx context.Context) error {
	err := b.store.step("check layer")
	if err == nil {
		err = b.file.Truncate(b.desc.Size)
	}
	if err != nil {
		return diskError("write stage", err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, &contextReader{ctx, io.NewSectionReader(b.file, 0, b.desc.Size)}); err != nil {
		return fmt.Errorf("read stage: %w", err)
	}
	if got := bundle.Digest(sum.Sum(nil)); got != b.desc.Digest {
		return bundle.Reject(bundle.ErrDigest, "%s sends %v in the place of layer %v: push the image again, or use another registry", b.from.Host, got, b.desc.Digest)
	}
	return nil
}

// policy of a repository.
func (s *Store) policy(repository string) Policy {
	var best Policy
	for _, p := range s.cfg.Policies {
		if oci.Within(repository, p.Prefix) && len(p.Prefix) > len(best.Prefix) {
			best = p
		}
	}
	return best
}

// signed asks for the signature that the policy wants, over the manifest or the index it was chosen from.
func (s *Store) signed(ctx context.Context, r oci.Reference, img *oci.Image) (signer string, err error) {
	keys := s.policy(r.Repository()).Keys
	if len(keys) == 0 {
		return "", nil
	}
	for _, d := range []bundle.Digest{img.Index, img.Digest} {
		if d.IsZero() {
			continue
		}
		if signer, err = s.registries.Signed(ctx, r, d, keys); err == nil || bundle.CodeOf(err) != bundle.ErrSignature {
			return signer, err
		}
	}
	return "", err
}

// trustOCI says why an installed image may not be used under today's policy, or nil. What came with an archive was put here by whoever
// owns the device.
func (s *Store) trustOCI(r record) error {
	if r.OCI.Loaded {
		return nil
	}
	for _, name := range r.OCI.Names {
		ref, err := oci.ParseReference(name)
		if err != nil {
			continue
		}
		keys := s.policy(ref.Repository()).Keys
		if len(keys) > 0 && !slices.ContainsFunc(keys, func(k oci.Key) bool { return k.Name == r.OCI.Signer }) {
			return bundle.Reject(bundle.ErrKey, "%s is here without a signature that %s asks for now: pull it again", name, "the configuration")
		}
	}
	return nil
}
