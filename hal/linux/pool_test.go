package linux

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

type closer struct{ closed *int }

func (c closer) Close() error { *c.closed++; return nil }

func TestOneDeviceIsOpenedOnceAndClosedByItsLastUser(t *testing.T) {
	t.Parallel()
	var p pool
	opened, closed := 0, 0
	open := func() (io.Closer, error) { opened++; return closer{&closed}, nil }
	a, err := p.get("/dev/ttyS1", "9600-8N1", open)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.get("/dev/ttyS1", "9600-8N1", open)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.get("/dev/ttyS1", "19200-8N1", open); !errors.Is(err, CodeBusy) {
		t.Errorf("another mode: got %v, want a refusal", err)
	}
	for range 2 {
		a.Close()
	}
	if opened != 1 || closed != 0 {
		t.Errorf("one user left: got opened %d closed %d, want 1 and 0", opened, closed)
	}
	b.forget()
	c, err := p.get("/dev/ttyS1", "19200-8N1", open)
	if err != nil || opened != 2 {
		t.Fatalf("after it was plugged out: got %v, opened %d, want a second open", err, opened)
	}
	b.Close()
	if closed != 1 {
		t.Errorf("got closed %d, want the forgotten one closed by its last user", closed)
	}
	c.Close()
	if closed != 2 {
		t.Errorf("got closed %d, want 2", closed)
	}
}

func TestSerialExchangeReadsUpToItsEndMark(t *testing.T) {
	t.Parallel()
	port, far := ptyPair(t, "9600-8N1")
	unit(t, far, func(got []byte) []byte { return []byte("21.5 C\nrest") })
	line, part := hal.Op{Write: []byte("T?\n"), Until: '\n'}, hal.Op{Write: []byte("T?\n"), Read: 4}
	if err := port.exchange(t.Context(), &line); string(line.Data) != "21.5 C\n" || err != nil {
		t.Errorf("got %q, %v, want the line", line.Data, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := port.exchange(ctx, &part); string(part.Data) != "21.5" || err != nil {
		t.Errorf("got %q, %v, want four bytes", part.Data, err)
	}
}
