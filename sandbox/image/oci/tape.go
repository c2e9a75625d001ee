package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// The kinds of entries that a layer may have.
const (
	tapeFile    = '0'
	tapeLink    = '1'
	tapeSymlink = '2'
	tapeChar    = '3'
	tapeBlock   = '4'
	tapeDir     = '5'
	tapePipe    = '6'
	tapePlain   = '7' // a contiguous file, which nobody means
	tapeSparse  = 'S'
	tapeGlobal  = 'g'
)

// label is what stands before an entry of a tar.
type label struct {
	kind     byte
	name     string
	link     string
	mode     int64
	uid, gid int64
	size     int64
	sec      int64
	nsec     uint32
	sparse   bool
	xattrs   map[string]string // with their names in full
}

// tape reads a tar: POSIX with extended headers, GNU and V7. Nothing of a header is allocated by its own word.
type tape struct {
	r     io.Reader
	left  int64 // of the entry's content
	pad   int64 // behind it
	block [tapeBlock512]byte
	buf   []byte
}

const (
	tapeBlock512 = 512
	maxExtended  = 1 << 20 // bytes of one extended header
)

// errTape is wrapped by what is wrong with a header. errBounds is a number or a text that no entry may have.
var (
	errTape   = errors.New("malformed header")
	errBounds = errors.New("header out of bounds")
)

// Read reads the content of the entry that next returned.
func (t *tape) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, io.EOF
	}
	n, err := t.r.Read(p[:min(int64(len(p)), t.left)])
	t.left -= int64(n)
	if errors.Is(err, io.EOF) && t.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// skip goes to the end of the entry.
func (t *tape) skip() error {
	if t.buf == nil {
		t.buf = make([]byte, 32<<10)
	}
	rest := t.left + t.pad
	t.left, t.pad = 0, 0
	for rest > 0 {
		n, err := io.ReadFull(t.r, t.buf[:min(int64(len(t.buf)), rest)])
		if rest -= int64(n); err != nil {
			return cutShort(err)
		}
	}
	return nil
}

// cutShort is the end of a tar where none may be.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next returns the next entry's label, or io.EOF.
func (t *tape) next() (label, error) {
	var records map[string]string
	var longName, longLink string
	for {
		if err := t.skip(); err != nil {
			return label{}, err
		}
		l, err := t.header()
		if err != nil {
			return label{}, err
		}
		switch l.kind {
		case 'x', 'L', 'K':
			text, err := t.extended(l.size)
			if err != nil {
				return label{}, err
			}
			switch l.kind {
			case 'x':
				if records, err = parseRecords(text); err != nil {
					return label{}, err
				}
			case 'L':
				longName = upToNUL(text)
			case 'K':
				longLink = upToNUL(text)
			}
			continue
		}
		if longName != "" {
			l.name = longName
		}
		if longLink != "" {
			l.link = longLink
		}
		if err := l.extend(records); err != nil {
			return label{}, err
		}
		t.begin(&l)
		return l, nil
	}
}

// begin notes how much content follows.
func (t *tape) begin(l *label) {
	switch {
	case l.kind == 0, l.kind == tapePlain:
		l.kind = tapeFile
	case strings.IndexByte("123456", l.kind) >= 0:
		l.size = 0 // whatever it says
	}
	if l.kind == tapeFile && strings.HasSuffix(l.name, "/") { // of V7
		l.kind = tapeDir
	}
	t.left = l.size
	t.pad = -l.size & (tapeBlock512 - 1)
}

// extended reads the content of an extended header.
func (t *tape) extended(size int64) ([]byte, error) {
	if size > maxExtended {
		return nil, fmt.Errorf("%w: %d bytes of it", errBounds, size)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(t.r, text); err != nil {
		return nil, cutShort(err)
	}
	t.left, t.pad = 0, -size&(tapeBlock512-1)
	return text, nil
}

func upToNUL(text []byte) string {
	text, _, _ = bytes.Cut(text, []byte{0})
	return string(text)
}

// header reads one block, or io.EOF where a tar ends.
func (t *tape) header() (label, error) {
	b := t.block[:]
	switch n, err := io.ReadFull(t.r, b); {
	case n == 0 && errors.Is(err, io.EOF):
		return label{}, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return label{}, err
	case err != nil:
		return label{}, err
	}
	var sum int64
	zero := true
	for i, c := range b {
		if zero = zero && c == 0; i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	if zero {
		return label{}, io.EOF
	}
	field := func(from, to int) (n int64) {
		if n, ok := number(b[from:to]); ok {
			return n
		}
		sum = -1
		return 0
	}
	l := label{
		kind: b[156], name: upToNUL(b[:100]), link: upToNUL(b[157:257]),
		mode: field(100, 108), uid: field(108, 116), gid: field(116, 124), size: field(124, 136), sec: field(136, 148),
	}
	if sum < 0 || field(148, 156) != sum {
		return label{}, errTape
	}
	if string(b[257:263]) == "ustar\x00" && b[345] != 0 {
		l.name = upToNUL(b[345:500]) + "/" + l.name
	}
	if l.size < 0 {
		return label{}, fmt.Errorf("%w: size %d", errBounds, l.size)
	}
	return l, nil
}

// number reads octal digits, or a binary number behind a high bit.
func number(b []byte) (int64, bool) {
	if b[0]&0x80 == 0 {
		text := strings.Trim(string(b), " \x00")
		if text == "" {
			return 0, true
		}
		n, err := strconv.ParseInt(text, 8, 64)
		return n, err == nil && n >= 0
	}
	negative := b[0]&0x40 != 0
	var n int64
	for i, c := range b {
		if negative {
			c = ^c
		}
		if i == 0 {
			c &= 0x3f
		}
		if n>>55 != 0 {
			return 0, false
		}
		n = n<<8 | int64(c)
	}
	if negative {
		n = ^n
	}
	return n, true
}

// parseRecords reads "17 path=some/name\n" again and again.
func parseRecords(text []byte) (map[string]string, error) {
	records := make(map[string]string)
	for len(text) > 0 {
		digits, _, ok := bytes.Cut(text, []byte{' '})
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || n <= len(digits)+1 || n > len(text) || text[n-1] != '\n' {
			return nil, fmt.Errorf("%w: extended", errTape)
		}
		key, value, ok := strings.Cut(string(text[len(digits)+1:n-1]), "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%w: extended", errTape)
		}
		records[key] = value
		text = text[n:]
	}
	return records, nil
}

// extend puts what an extended header says in the place of what the header had no room for.
func (l *label) extend(records map[string]string) error {
	for key, value := range records {
		var err error
		switch key {
		case "path":
			l.name = value
		case "linkpath":
			l.link = value
		case "size":
			l.size, err = strconv.ParseInt(value, 10, 64)
		case "uid":
			l.uid, err = strconv.ParseInt(value, 10, 64)
		case "gid":
			l.gid, err = strconv.ParseInt(value, 10, 64)
		case "mtime":
			l.sec, l.nsec, err = parseTime(value)
		default:
			if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				if l.xattrs == nil {
					l.xattrs = make(map[string]string)
				}
				l.xattrs[name] = value
			}
			l.sparse = l.sparse || strings.HasPrefix(key, "GNU.sparse.")
		}
		if err != nil || l.size < 0 {
			return fmt.Errorf("%w: %s=%.40q", errBounds, key, value)
		}
	}
	return nil
}

// parseTime reads seconds with a fraction, such as -1.5.
func parseTime(text string) (sec int64, nsec uint32, err error) {
	whole, fraction, _ := strings.Cut(text, ".")
	if sec, err = strconv.ParseInt(whole, 10, 64); err != nil {
		return 0, 0, err
	}
	fraction = (fraction + "000000000")[:9]
	n, err := strconv.ParseUint(fraction, 10, 32)
	if err == nil && strings.HasPrefix(whole, "-") && n > 0 {
		return sec - 1, uint32(1_000_000_000 - n), nil
	}
	return sec, uint32(n), err
}

// tapeError says what an error of a tape is.
func tapeError(err error) bundle.Code {
	if errors.Is(err, errBounds) {
		return bundle.ErrLimit
	}
	return bundle.ErrOCI
}
