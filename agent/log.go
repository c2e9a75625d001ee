package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/journal"
)

// NewLogger builds the agent's logger on w as the configuration says. With [LogAuto] the lines go to the journal with their
// attributes as fields when JOURNAL_STREAM names the very file that w is (systemd.exec(5)), else to w as text.
func NewLogger(w *os.File, cfg Log) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Level}
	format := cfg.Format
	if format == LogAuto || format == "" {
		format = LogText
		if isJournal(w) && journal.Enabled() {
			format = LogJournal
		}
	}
	switch format {
	case LogJSON:
		return slog.New(slog.NewJSONHandler(w, opts))
	case LogJournal:
		return slog.New(&journalHandler{level: cfg.Level, fallback: w})
	default:
		return slog.New(slog.NewTextHandler(w, opts))
	}
}

// isJournal tells whether w is the stream that systemd connected to the journal.
func isJournal(w *os.File) bool {
	var dev, ino uint64
	if _, err := fmt.Sscanf(os.Getenv("JOURNAL_STREAM"), "%d:%d", &dev, &ino); err != nil {
		return false
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(w.Fd()), &st); err != nil {
		return false
	}
	return st.Dev == dev && st.Ino == ino
}

// journalHandler sends each record to the journal as one entry: the message, and every attribute as a field.
type journalHandler struct {
	level    slog.Level
	attrs    []slog.Attr
	group    string
	fallback io.Writer // told when the journal refuses an entry: a lost log line is worse than a plain one
}

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	vars := make(map[string]string, len(h.attrs)+r.NumAttrs())
	line := r.Message
	add := func(prefix string, a slog.Attr) {
		key, value := prefix+a.Key, a.Value.Resolve().String()
		vars[journalField(key)] = value
		line += " " + key + "=" + value
	}
	for _, a := range h.attrs {
		add("", a)
	}
	r.Attrs(func(a slog.Attr) bool { add(h.group, a); return true })
	if err := journal.Send(line, priority(r.Level), vars); err != nil {
		_, err = fmt.Fprintln(h.fallback, line)
		return err
	}
	return nil
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		a.Key = h.group + a.Key
		next.attrs = append(next.attrs, a)
	}
	return &next
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.group += name + "."
	return &next
}

// journalField maps an attribute key to what the journal allows: capitals, digits and underscores, no leading underscore.
func journalField(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return "SANDPIPER_" + name
}

func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
