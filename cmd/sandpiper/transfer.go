package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

// arriving says what is under way, and how far the image is that arrives for it.
func (s *shared) arriving(ctx context.Context, what string) func() string {
	return func() string {
		if status, err := s.client().Status(ctx); err == nil && status.Transfer != nil {
			return what + ": " + transferLine(*status.Transfer)
		}
		return what
	}
}

// transferLine is an image on its way, in one line.
func transferLine(t control.Transfer) string {
	var b strings.Builder
	b.WriteString(t.Image)
	if t.Image == "" {
		b.WriteString(t.Reference)
	}
	switch {
	case t.Total == 0:
		fmt.Fprintf(&b, ", %s", t.Phase)
	case t.Phase == "verify":
		fmt.Fprintf(&b, ", %s is here and read back", console.Size(t.Total))
	default:
		fmt.Fprintf(&b, ", %d %%, %s of %s, %s over the network", t.Bytes*100/t.Total, console.Size(t.Bytes), console.Size(t.Total), console.Size(t.Received))
	}
	if t.Rate > 0 && t.LeftSeconds > 0 {
		fmt.Fprintf(&b, ", %s/s, %v left", console.Size(t.Rate), time.Duration(t.LeftSeconds)*time.Second)
	}
	return b.String()
}
