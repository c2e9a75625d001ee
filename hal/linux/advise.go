package linux

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// release is what a controller does to an output when the last descriptor of its request closes: the kernel's document
// promises nothing, so it goes by the driver.
type release string

const (
	releaseInput   release = "makes it an input"
	releaseKeep    release = "keeps its level"
	releasePull    release = "lets its pull decide"
	releaseUnknown release = "may do anything"
)

// released is known of the drivers that somebody looked at; a release is never a safe state all the same.
func (h *host) released(c *device) release {
	real, err := resolved(c.dir)
	if err != nil {
		return releaseUnknown
	}
	switch driver(filepath.Dir(real)) {
	case "gpio-sim":
		return releasePull
	case "pinctrl-bcm2835":
		if attrOr(h.path("sys/module/pinctrl_bcm2835/parameters/persist_gpio_outputs")) == "Y" {
			return releaseKeep
		}
		return releaseInput
	}
	return releaseUnknown
}

// Advice is what of the board disagrees with a safe level, and what to do.
type Advice struct{ What, Do string }

// Advise looks at an output line without moving it and says what about the board disagrees with its safe level: how the pin stands before
// anybody drives it, and what the controller does when nobody does any more.
func (b *Board) Advise(r hal.Resource) ([]Advice, error) {
	if r.Kind != KindLine || r.Line.Direction != hal.Out {
		return nil, nil
	}
	c, l, err := b.findLine(r.Line)
	if err != nil {
		return nil, coded(KindLine, fmt.Errorf("%s: %w", r.Name, err))
	}
	high := (r.Safe != nil && *r.Safe != 0) != r.Line.ActiveLow // the safe level on the pin
	var list []Advice
	where := r.Name + " (" + whereLine(c, l) + ")"
	idle, known, err := idleLine(c, l)
	if err != nil {
		return nil, coded(KindLine, fmt.Errorf("%s: %w", r.Name, err))
	}
	if known && idle != high {
		list = append(list, Advice{where + " stands " + level(idle) + " until the agent drives it, and is safe " + level(high), "add a pull resistor to " + level(high) + ", or a gpio-hog"})
	}
	if how := b.released(c); how != releaseKeep {
		list = append(list, Advice{where + ": its controller " + string(how) + " when the warden dies", "a pull resistor to " + level(high) + " makes that safe"})
	}
	return list, nil
}

func level(high bool) string {
	if high {
		return "high"
	}
	return "low"
}

// idle is the level of a line that nobody has: its pull when the kernel knows of one, else what can be read of it as
// it is. A line in use tells its pull only.
func idleLine(c *device, l *lineInfo) (high, known bool, err error) {
	switch {
	case l.flags&flagBiasPullUp != 0:
		return true, true, nil
	case l.flags&flagBiasPullDown != 0:
		return false, true, nil
	case l.used(), l.flags&flagOutput != 0: // what drove it before, as a boot loader: letting go again could make it an input
		return false, false, nil
	}
	r, err := requestLine(c, l, &lineConfig{consumer: "sp:check", asIs: true})
	if errors.Is(err, CodeBusy) { // meanwhile
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	on, err := r.get()
	_ = r.Close()
	return on, err == nil, err
}
