package image

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// source gives the bytes of one file. open returns those from offset from up to offset to, or to the end when to is toEnd. fromStart
// says that it could not, and that they start at 0 and go to the end. A source may give fewer: the caller asks again.
type source interface {
	open(ctx context.Context, from, to int64) (body io.ReadCloser, fromStart bool, err error)
	sibling(name string) source // a file beside it
	validator() string          // what tells this state of the file from others, "" when nothing does
	validate(validator string)  // bytes of any other state are not wanted
	transient() bool            // whether an error may go away by trying again
}

const toEnd = -1

// sizeOf asks a body for the length of the whole file, where it is known.
func sizeOf(body io.Reader) (int64, bool) {
	if s, ok := body.(interface{ size() (int64, bool) }); ok {
		return s.size()
	}
	return 0, false
}

// mirrors are the sources of one bundle, of which one is asked until it disappoints.
type mirrors struct {
	all []source
	now int
}

func (s *Store) mirrors(r reference) *mirrors {
	if r.url == nil {
		return &mirrors{all: []source{fileSource(r.file)}}
	}
	m := &mirrors{}
	for _, u := range s.cfg.Mirrors.of(r.url) {
		m.all = append(m.all, &httpsSource{client: s.cfg.HTTP, url: u, stall: s.cfg.Stall, meter: s.meter})
	}
	return m
}

func (m *mirrors) current() source { return m.all[m.now] }

// turn goes to the next mirror.
func (m *mirrors) turn() { m.now = (m.now + 1) % len(m.all) }

// Mirror says where else than under Prefix its files are found: under each of URLs, under the same rest of the path.
type Mirror struct {
	Prefix string   // https:// URL, ending in /
	URLs   []string // the same; asked in this order, after Prefix itself
}

// Mirrors of bundles, by prefix.
type Mirrors []Mirror

// Validate says what is wrong with the list, or nil.
func (m Mirrors) Validate() error {
	for _, mirror := range m {
		for _, text := range append([]string{mirror.Prefix}, mirror.URLs...) {
			u, err := url.Parse(text)
			if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || !strings.HasSuffix(u.Path, "/") {
				return bundle.Reject(bundle.ErrReference, "mirror %q: want an https:// URL without credentials that ends in /", withoutCredentials(text))
			}
		}
	}
	return nil
}

// of returns where a file may be had, first where its reference says.
func (m Mirrors) of(u *url.URL) []*url.URL {
	all := []*url.URL{u}
	for _, mirror := range m {
		rest, ok := strings.CutPrefix(u.String(), mirror.Prefix)
		if !ok {
			continue
		}
		for _, text := range mirror.URLs {
			if other, err := url.Parse(text + rest); err == nil {
				all = append(all, other)
			}
		}
	}
	return all
}

// firstBytes is how much of a bundle is asked for when only what precedes its payload is wanted and its length is not known.
const firstBytes = 8 << 10

// prefixReader reads a bundle's start through a source in two requests: the first bytes, and what the header says is missing.
type prefixReader struct {
	ctx   context.Context //nolint:containedctx // of the try that reads
	src   source
	at    int64
	limit int64 // where the payload starts, once the header has passed
	head  []byte
	body  io.ReadCloser
	kept  []byte // came and was not asked for yet
	whole bool   // the source gives the file from its start, and to its end
	total int64  // length of the file, once known
}

func (p *prefixReader) Read(b []byte) (int, error) {
	if len(p.kept) > 0 {
		n := copy(b, p.kept)
		p.kept = p.kept[n:]
		p.note(b[:n])
		return n, nil
	}
	for {
		if p.body == nil {
			if err := p.next(); err != nil {
				return 0, err
			}
		}
		n, err := p.body.Read(b)
		if n > 0 {
			p.note(b[:n])
			return n, nil
		}
		if err != nil && (p.whole || !errors.Is(err, io.EOF) || (p.total > 0 && p.at >= p.total)) {
			return 0, err
		}
		if err != nil {
			if p.at < bundle.HeaderSize { // neither more of it, nor a length to go on with
				return 0, io.EOF
			}
			p.close()
		}
	}
}

func (p *prefixReader) next() error {
	to := int64(firstBytes)
	if p.at > 0 {
		to = p.limit
	}
	if to <= p.at {
		return io.EOF
	}
	body, fromStart, err := p.src.open(p.ctx, p.at, to)
	if err != nil {
		return err
	}
	if fromStart && p.at > 0 {
		return errors.Join(bundle.Reject(bundle.ErrChanged, "the bundle was replaced while its start was read: it is fetched again"), body.Close())
	}
	p.body, p.whole = body, fromStart
	if n, ok := sizeOf(body); ok {
		p.total = n
	}
	return nil
}

func (p *prefixReader) note(b []byte) {
	p.at += int64(len(b))
	if missing := bundle.HeaderSize - len(p.head); missing > 0 {
		p.head = append(p.head, b[:min(missing, len(b))]...)
		if h, err := bundle.ParseHeader(p.head); err == nil {
			p.limit = h.PayloadOffset()
		}
	}
}

// keep takes the rest of the first answer, so that no connection waits while something else is fetched.
func (p *prefixReader) keep() {
	if p.body == nil {
		return
	}
	p.kept, _ = io.ReadAll(io.LimitReader(p.body, firstBytes)) // what does not come is asked for again
	p.close()
}

func (p *prefixReader) size() (int64, bool) { return p.total, p.total > 0 }

func (p *prefixReader) close() {
	if p.body != nil {
		_ = p.body.Close()
		p.body = nil
	}
}
