package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// canUnit sends and receives frames of an interface.
type canUnit struct{ sock *canSocket }

func (b *Board) openCAN(p *hal.CANPart) (hal.Device, error) {
	list := make([]canFilter, len(p.RX))
	for i, m := range p.RX {
		list[i] = canFilter{id: m.ID, mask: m.Mask | canEFF | canRTR} // extended ones are told apart from standard ones
	}
	s, err := openCAN(p.Interface, list)
	if err != nil {
		return nil, err
	}
	return &canUnit{s}, nil
}

// Do sends one frame an operation.
func (u *canUnit) Do(ctx context.Context, ops []hal.Op) error {
	for i := range ops {
		id := ops[i].ID
		err := ctx.Err()
		if err == nil {
			err = u.sock.send(canFrame{id: id &^ (canEFF | canRTR), extended: id&canEFF != 0, remote: id&canRTR != 0, data: ops[i].Write})
		}
		if err != nil {
			return coded(KindCAN, fmt.Errorf("send on %s: %w", u.sock.name, err))
		}
	}
	return nil
}

// Close leaves the bus.
func (u *canUnit) Close() error { return u.sock.Close() }

// Frames gives what the interface hears of the resource's identifiers.
func (u *canUnit) Frames(context.Context) (hal.EdgeReader, error) {
	if err := u.sock.file.SetReadDeadline(time.Time{}); err != nil { // after an earlier reader's end
		return nil, coded(KindCAN, err)
	}
	return &frames{sock: u.sock}, nil
}

type frames struct {
	_    apart
	sock *canSocket
	seq  uint64
	lost uint32
}

// Read waits for a frame.
func (f *frames) Read(ctx context.Context, into []hal.Event) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	got, err := f.sock.receive()
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, &Error{Code: CodeGone, Err: err}
		}
		return 0, coded(KindCAN, fmt.Errorf("receive on %s: %w", f.sock.name, err))
	}
	missed := uint64(got.lost - f.lost)
	f.lost = got.lost
	f.seq += 1 + missed
	into[0] = hal.Event{Seq: f.seq, Lost: missed, ID: got.id, Data: got.data, Time: time.Unix(0, got.wall), Mono: monotonic()}
	if got.extended {
		into[0].ID |= hal.CANExtended
	}
	return 1, nil
}

// Close makes a waiting Read end.
func (f *frames) Close() error { return f.sock.file.SetReadDeadline(pastTime) }
