package main

import (
	"bytes"
	"io"
)

// visible is a terminal to which modules' output goes. A module's author must not move the technician's cursor, set his window's title or
// put words on his clipboard: what is neither text nor a colour is shown as ^X.
type visible struct {
	to   io.Writer
	line []byte // begun and not ended
}

// maxVisible bounds a line that is kept for its end, in bytes: a log has none as long.
const maxVisible = 64 << 10

func (v *visible) Write(p []byte) (int, error) {
	v.line = append(v.line, p...)
	end := bytes.LastIndexByte(v.line, '\n') + 1
	if end == 0 && len(v.line) < maxVisible {
		return len(p), nil
	}
	if end == 0 {
		end = len(v.line)
	}
	_, err := v.to.Write(shown(v.line[:end]))
	v.line = append(v.line[:0], v.line[end:]...)
	return len(p), err
}

// shown is text as a terminal may have it.
func shown(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch n := colour(text[i:]); {
		case n > 0:
			out = append(out, text[i:i+n]...)
			i += n - 1
		case c == '\r' && i+1 < len(text) && text[i+1] == '\n':
		case c == '\n' || c == '\t' || c >= ' ' && c != 0x7f && c != 0xc2:
			out = append(out, c)
		case c == 0xc2 && (i+1 == len(text) || text[i+1] >= 0xa0): // no control in UTF-8
			out = append(out, c)
		case c == 0xc2:
			out = append(out, '^', '[', text[i+1]-0x40)
			i++
		default:
			out = append(out, '^', c^0x40)
		}
	}
	return out
}

// colour is the length of the sequence that sets colours at the beginning of text, 0 where there is none.
func colour(text []byte) int {
	if !bytes.HasPrefix(text, []byte("\x1b[")) {
		return 0
	}
	for n, c := range text[2:] {
		if c == 'm' {
			return n + 3
		}
		if c != ';' && (c < '0' || c > '9') {
			break
		}
	}
	return 0
}
