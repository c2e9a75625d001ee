package supervisor

import (
	"fmt"
	"strconv"
	"strings"
)

// Place is a place in a module's log: behind so many lines of a segment, of both streams. It is the same to the next agent.
type Place struct {
	Segment, Lines int
}

// String is "segment.lines".
func (p Place) String() string { return strconv.Itoa(p.Segment) + "." + strconv.Itoa(p.Lines) }

// ParsePlace reads what String wrote.
func ParsePlace(text string) (p Place, err error) {
	segment, lines, ok := strings.Cut(text, ".")
	if p.Segment, err = strconv.Atoi(segment); err == nil {
		p.Lines, err = strconv.Atoi(lines)
	}
	if !ok || err != nil || p.Segment < 0 || p.Lines < 0 {
		return Place{}, fmt.Errorf("place %q in a log: want SEGMENT.LINES", text)
	}
	return p, nil
}

// behind tells whether the line that ends at p comes after the place.
func (p Place) behind(o Place) bool {
	return p.Segment > o.Segment || p.Segment == o.Segment && p.Lines > o.Lines
}
