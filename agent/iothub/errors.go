package iothub

import (
	"errors"
	"strconv"
)

// ErrUnknownTopic is wrapped by [ParsePublish], [ParseDelivery] and [ParseFilter] when the text has none of the
// shapes of the dialect at all. Servers acknowledge such a publish or subscription and ignore it, whereas a known
// shape with a bad part (any other error) ends the connection.
var ErrUnknownTopic = errors.New("not a topic of IoT Hub")

// SyntaxError says which text did not parse and why. It never carries a secret.
type SyntaxError struct {
	Noun string // what was parsed: "topic", "bag", "user name", "token"…
	Text string // the text, cut to a length fit for a log line; empty when it is secret
	Why  string // what is wrong with it
	Err  error  // cause, or nil
}

// Error prints noun, text and reason in one line.
func (e *SyntaxError) Error() string {
	s := e.Noun
	if e.Text != "" {
		s += " " + strconv.Quote(e.Text)
	}
	return s + ": " + e.Why
}

// Unwrap returns the cause, [ErrUnknownTopic] for a text of no known shape.
func (e *SyntaxError) Unwrap() error { return e.Err }

// shown is how many bytes of a bad text an error repeats.
const shown = 128

func syntax(noun, text, why string) error {
	return &SyntaxError{Noun: noun, Text: cut(text), Why: why}
}

func unknown(noun, text string) error {
	return &SyntaxError{Noun: noun, Text: cut(text), Why: ErrUnknownTopic.Error(), Err: ErrUnknownTopic}
}

func cut(text string) string {
	if len(text) > shown {
		return text[:shown] + "…"
	}
	return text
}
