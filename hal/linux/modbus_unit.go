package linux

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// modbusLine is a port or a connection that carries requests to units.
type modbusLine interface {
	do(ctx context.Context, unit byte, r modbusRequest) ([]byte, error)
}

type modbusUnit struct {
	_     noCompare
	share *share
	where string
	unit  byte
	tcp   bool
}

func (b *Board) openModbus(p *hal.ModbusPart) (hal.Device, error) {
	u := &modbusUnit{where: p.TCP, unit: byte(p.Unit), tcp: p.TCP != ""}
	var err error
	if u.tcp {
		if _, _, err := net.SplitHostPort(p.TCP); err != nil {
			return nil, fmt.Errorf("address %q: %w", clip(p.TCP), unix.EINVAL)
		}
		u.share, err = b.tcps.get(p.TCP, "", func() (io.Closer, error) { return &modbusTCP{address: p.TCP}, nil })
	} else {
		s := p.Serial
		u.where = s.Port()
		u.share, err = b.rtus.get(u.where, s.Mode, func() (io.Closer, error) {
			port, err := b.openTTY(s)
			if err != nil {
				return nil, err
			}
			return &modbusRTU{port: port, gap: time.Duration(s.Gap)}, nil
		})
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

func (u *modbusUnit) Do(ctx context.Context, ops []hal.Op) error {
	line := u.share.it().(modbusLine)
	for i := range ops {
		o := &ops[i]
		r, err := modbusCall(o.Fn, len(o.Write))
		if err == nil {
			r.addr, r.count, r.data = o.Addr, int(o.N), o.Write
			o.Data, err = line.do(ctx, u.unit, r)
		}
		if err != nil {
			err = portError("unit "+strconv.Itoa(int(u.unit))+" on "+u.where, err)
			if !u.tcp && codeOf(KindSerial, err) == CodeGone {
				u.share.forget()
			}
			return err
		}
	}
	return nil
}

func (u *modbusUnit) Close() error { return u.share.Close() }
