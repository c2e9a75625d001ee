package route

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Terms are what a rule asks of the store beyond priority and time to live. The zero Terms are the strictest.
type Terms struct {
	Durability Durability
	Eviction   Eviction
	Clock      Clock
}

// Durability is what an acknowledgement means. The zero Durability is strict: the disk has it. With a Window it is
// relaxed: the message is in memory, and on the disk within that time; a power cut loses at most what came in the
// last Window.
type Durability struct {
	Window time.Duration
}

// The bounds of a relaxed window.
const (
	MinWindow = 100 * time.Millisecond
	MaxWindow = time.Minute
)

const wantDurability = `"strict", or "relaxed(T)" with T from 100ms to 1m, such as "relaxed(5s)"`

// ParseDurability reads "strict" or "relaxed(T)". Its error is a [*ParseError].
func ParseDurability(text string) (Durability, error) {
	if text == "strict" {
		return Durability{}, nil
	}
	inner, ok := within(text, "relaxed(")
	if !ok {
		return Durability{}, &ParseError{What: "durability " + shown(text), Want: wantDurability}
	}
	window, err := time.ParseDuration(inner)
	if err != nil || window < MinWindow || window > MaxWindow {
		return Durability{}, &ParseError{Offset: len("relaxed("), What: "time " + shown(inner), Want: wantDurability}
	}
	return Durability{Window: window}, nil
}

// Relaxed tells whether an acknowledgement comes before the disk.
func (d Durability) Relaxed() bool { return d.Window > 0 }

// String prints the durability as a manifest names it.
func (d Durability) String() string {
	if !d.Relaxed() {
		return "strict"
	}
	return "relaxed(" + d.Window.String() + ")"
}

// Eviction says what a route lets go when the store is full. The zero Eviction is nothing: the publish is refused, and what
// was acknowledged stays. OldestFirst lets the oldest messages go, those of the lowest priority first. With a Key, of several
// messages with one value of that property only the newest is kept.
type Eviction struct {
	OldestFirst bool
	Key         string // never together with OldestFirst
}

// MaxEvictionKey is the length of the longest property name in an eviction policy, in bytes.
const MaxEvictionKey = 128

const wantEviction = `"refuse", "oldest-first", or "newest-per-key(NAME)" with the name of a message property, such as "newest-per-key(sensorId)"`

// ParseEviction reads "refuse", "oldest-first" or "newest-per-key(NAME)". Its error is a [*ParseError].
func ParseEviction(text string) (Eviction, error) {
	switch text {
	case "refuse":
		return Eviction{}, nil
	case "oldest-first":
		return Eviction{OldestFirst: true}, nil
	}
	name, ok := within(text, "newest-per-key(")
	if !ok {
		return Eviction{}, &ParseError{What: "eviction " + shown(text), Want: wantEviction}
	}
	if name == "" || len(name) > MaxEvictionKey || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unfit) {
		return Eviction{}, &ParseError{Offset: len("newest-per-key("), What: "property name " + shown(name), Want: wantEviction}
	}
	return Eviction{Key: name}, nil
}

func unfit(c rune) bool { return c == '(' || c == ')' || c == utf8.RuneError || !unicode.IsPrint(c) }

// String prints the eviction as a manifest names it.
func (e Eviction) String() string {
	switch {
	case e.OldestFirst:
		return "oldest-first"
	case e.Key != "":
		return "newest-per-key(" + e.Key + ")"
	}
	return "refuse"
}

// Clock says which time a time to live counts.
type Clock uint8

// The clocks of a time to live. PoweredOn counts the time the device was switched on, which no jump of the wall clock
// changes. Wall counts the calendar: a message may expire while the device is off, and never while the time is unknown.
const (
	PoweredOn Clock = iota
	Wall
)

// ParseClock reads "powered-on" or "wall". Its error is a [*ParseError].
func ParseClock(text string) (Clock, error) {
	switch text {
	case "powered-on":
		return PoweredOn, nil
	case "wall":
		return Wall, nil
	}
	return PoweredOn, &ParseError{What: "clock " + shown(text), Want: `"powered-on" or "wall"`}
}

// String prints the clock as a manifest names it.
func (c Clock) String() string {
	if c == Wall {
		return "wall"
	}
	return "powered-on"
}

// Promise is what the producer of one message was given: how many sinks took it, and the strictest durability of them.
type Promise struct {
	Sinks      int // 0 = no route takes it: it was dropped
	Durability Durability
}

// String prints the promise in one word: a durability, or "none" when the message was dropped.
func (p Promise) String() string {
	if p.Sinks == 0 {
		return "none"
	}
	return p.Durability.String()
}

// Weaker tells whether p is less than other.
func (p Promise) Weaker(other Promise) bool {
	if p.Sinks == 0 || other.Sinks == 0 {
		return p.Sinks == 0 && other.Sinks > 0
	}
	return p.Durability.Window > other.Durability.Window
}

// within takes what stands between prefix and the closing parenthesis at the end.
func within(text, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, ")")
}

// shown quotes what was written, shortened.
func shown(text string) string {
	if len(text) > 64 {
		text = text[:64] + "…"
	}
	return string(appendQuoted(nil, text))
}
