package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestATerminalGetsTextAndColoursOnly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"text":                     {"grüße, 温度\t21 °C\n", "grüße, 温度\t21 °C\n"},
		"colours":                  {"\x1b[1;31mred\x1b[0m\x1b[m\n", "\x1b[1;31mred\x1b[0m\x1b[m\n"},
		"a title":                  {"\x1b]0;root\x07\n", "^[]0;root^G\n"},
		"a cursor that moves":      {"\x1b[2J\x1b[1;1H\n", "^[[2J^[[1;1H\n"},
		"a sequence that is cut":   {"\x1b[31\n", "^[[31\n"},
		"a line over another":      {"bad\rgood\n", "bad^Mgood\n"},
		"lines of DOS":             {"one\r\ntwo\r\n", "one\ntwo\n"},
		"controls in UTF-8":        {"\u009b2J\u00a0x\n", "^[[2J\u00a0x\n"},
		"nothing and what deletes": {"\x00\x7f\x08\n", "^@^?^H\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for size := 1; size <= len(c.in); size++ { // however it comes
				var out bytes.Buffer
				v := &visible{to: &out}
				for rest := c.in; rest != ""; {
					n := min(size, len(rest))
					if _, err := v.Write([]byte(rest[:n])); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if out.String() != c.want {
					t.Fatalf("in pieces of %d: got %q, want %q", size, out.String(), c.want)
				}
			}
		})
	}
	var out bytes.Buffer
	v := &visible{to: &out}
	if _, err := v.Write([]byte(strings.Repeat("x", 3*maxVisible))); err != nil || out.Len() != 3*maxVisible || len(v.line) != 0 {
		t.Errorf("a line without an end: got %d bytes out, %d kept, %v", out.Len(), len(v.line), err)
	}
}
