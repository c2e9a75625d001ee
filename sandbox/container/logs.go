package container

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// routeLogs sends what libcontainer logs, through the one logger it has for the
// whole process, to ours. The last runtime made gets it.
func routeLogs(to *slog.Logger) {
	l := logrus.StandardLogger()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.WarnLevel)
	hooks := logrus.LevelHooks{}
	hooks.Add(hook{to})
	l.ReplaceHooks(hooks)
}

type hook struct{ to *slog.Logger }

func (hook) Levels() []logrus.Level {
	return []logrus.Level{logrus.WarnLevel, logrus.ErrorLevel, logrus.FatalLevel, logrus.PanicLevel}
}

func (h hook) Fire(e *logrus.Entry) error {
	level := slog.LevelWarn
	if e.Level < logrus.WarnLevel {
		level = slog.LevelError
	}
	attrs := []slog.Attr{slog.String("message", e.Message)}
	if err, ok := e.Data[logrus.ErrorKey].(error); ok {
		attrs = append(attrs, slog.Any("err", err))
	}
	h.to.LogAttrs(context.Background(), level, "libcontainer", attrs...)
	return nil
}
