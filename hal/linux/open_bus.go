package linux

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// maxRead bounds what one call reads from a bus: the limit of one message times the most messages is far above it.
const maxRead = 64 << 10

// prepare bounds the operations of one call, and makes room for what each reads.
func prepare(ctx context.Context, ops []hal.Op) error {
	total := 0
	for i := range ops {
		o := &ops[i]
		if o.Read < 0 || o.Read > maxRead || len(o.Write) > maxRead {
			return fmt.Errorf("step of %d and %d bytes: %w", len(o.Write), o.Read, unix.EMSGSIZE)
		}
		total += o.Read + len(o.Write)
	}
	if total > maxRead {
		return fmt.Errorf("%d bytes in one call, at most %d: %w", total, maxRead, unix.EMSGSIZE)
	}
	for i := range ops {
		if ops[i].Read > 0 {
			ops[i].Data = make([]byte, ops[i].Read)
		}
	}
	return ctx.Err()
}
