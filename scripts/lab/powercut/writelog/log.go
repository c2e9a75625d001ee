package writelog

import (
	"encoding/gob"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Kind is what an operation does.
type Kind uint8

// The kinds of operation.
const (
	Write    Kind = iota // Data at Off of Object
	Truncate             // Object's size becomes Off
	Grow                 // Object's size becomes at least Off
	Link                 // Name in folder Object becomes Target
	Unlink               // Name in folder Object goes
	Rename               // FromName in folder From becomes Name in folder Object
	Flush                // of Object, or of everything when Object is Everything
	Say                  // Data on standard output
)

// Everything is the Object of a flush of the whole file system.
const Everything = -1

// Op is one operation of the traced process.
type Op struct {
	Kind     Kind
	At       int // when it was issued
	End      int // when it had ended well; 0: it had not when the process was killed
	Object   int // of Log.Objects
	Off      int64
	Data     []byte
	Name     string
	Target   int // of a Link, once it has ended
	From     int
	FromName string
}

// Object is a file or a folder, as it was when the recording began or when it was made.
type Object struct {
	Mode    fs.FileMode
	Data    []byte
	Entries map[string]int // of a folder
}

// Log is a recording. Object 0 is the folder itself.
type Log struct {
	Objects []Object
	Ops     []Op
	Length  int // points of the log: 0 to Length
}

// Said returns the lines on standard output before a point.
func (l *Log) Said(point int) []string {
	var text strings.Builder
	for i := range l.Ops {
		if op := &l.Ops[i]; op.Kind == Say && op.At < point {
			text.Write(op.Data)
		}
	}
	whole, _, _ := cutLast(text.String())
	if whole == "" {
		return nil
	}
	return strings.Split(whole, "\n")
}

// cutLast cuts text at its last line feed: what follows is not a whole line.
func cutLast(text string) (whole, rest string, found bool) {
	at := strings.LastIndexByte(text, '\n')
	if at < 0 {
		return "", text, false
	}
	return text[:at], text[at+1:], true
}

// Count returns how many operations of a kind the log has.
func (l *Log) Count(kind Kind) (n int) {
	for i := range l.Ops {
		if l.Ops[i].Kind == kind {
			n++
		}
	}
	return n
}

// Save writes the log in a form that [Load] reads: a cut that went wrong can be made again.
func (l *Log) Save(w io.Writer) error {
	if err := gob.NewEncoder(w).Encode(l); err != nil {
		return fmt.Errorf("save write log: %w", err)
	}
	return nil
}

// Load reads a saved log.
func Load(r io.Reader) (*Log, error) {
	var l Log
	if err := gob.NewDecoder(r).Decode(&l); err != nil {
		return nil, fmt.Errorf("load write log: %w", err)
	}
	return &l, nil
}
