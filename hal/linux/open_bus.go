package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// pieces makes room for what each step reads.
func pieces(ops []hal.Op) []piece {
	list := make([]piece, len(ops))
	for i := range ops {
		if ops[i].Read > 0 {
			ops[i].Data = make([]byte, ops[i].Read)
		}
		list[i] = piece{w: ops[i].Write, r: ops[i].Data}
	}
	return list
}

// maxRead bounds what one call reads from a bus: the limit of one message times the most messages is far above it.
const maxRead = 64 << 10

func bounded(ops []hal.Op) error {
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
	return nil
}

type i2cDevice struct {
	_     apart
	share *share
	addr  uint16
}

// busOf is the adapter behind a share of one.
func busOf(s *share) *i2cBus { return s.it().(*i2cBus) }

func (b *Board) shareI2C(p *hal.I2CPart) (*share, error) {
	a, err := b.findAdapter(p.Adapter, p.Path)
	if err != nil {
		return nil, err
	}
	return b.i2cs.get(a.node, "", func() (io.Closer, error) {
		bus, err := b.openI2C(a)
		if err != nil {
			return nil, err
		}
		if p.Timeout <= 0 {
			return bus, nil
		}
		if err := bus.setTimeout(p.Timeout); err != nil {
			return nil, joinClose(err, bus)
		}
		return bus, nil
	})
}

// freeAddr takes a share of the adapter, on which no driver of the kernel has the address.
func (b *Board) freeAddr(p *hal.I2CPart) (*share, error) {
	s, err := b.shareI2C(p)
	if err != nil {
		return nil, err
	}
	if err := busOf(s).free(uint16(p.Addr)); err != nil {
		return nil, joinClose(err, s)
	}
	return s, nil
}

func (b *Board) openI2CDevice(p *hal.I2CPart) (hal.Device, error) {
	if p.Addr < 0x08 || p.Addr > 0x77 {
		return nil, fmt.Errorf("address %#02x: want 0x08 to 0x77: %w", p.Addr, unix.ERANGE)
	}
	s, err := b.freeAddr(p)
	if err != nil {
		return nil, err
	}
	return &i2cDevice{share: s, addr: uint16(p.Addr)}, nil
}

func (d *i2cDevice) Do(ctx context.Context, ops []hal.Op) error {
	if err := errors.Join(ctx.Err(), bounded(ops)); err != nil {
		return coded(KindI2C, err)
	}
	return i2cError(d.share, d.addr, busOf(d.share).guarded(d.addr, pieces(ops)))
}

// guarded is do unless a driver of the kernel has come for the address meanwhile.
func (b *i2cBus) guarded(addr uint16, p []piece) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.free(addr); err != nil {
		return err
	}
	return b.do(addr, p)
}

// i2cError tells a chip that does not answer from an adapter that is gone: some drivers say ENODEV for both.
func i2cError(s *share, addr uint16, err error) error {
	if err == nil {
		return nil
	}
	bus := busOf(s)
	err = fmt.Errorf("address %#02x on %s: %w", addr, bus, err)
	if !errors.Is(err, unix.ENODEV) {
		return coded(KindI2C, err)
	}
	if exists(bus.h.path("sys/class/i2c-dev", baseName(bus.node))) {
		return &Error{Code: CodeNACK, Err: err}
	}
	s.forget()
	return &Error{Code: CodeGone, Err: err}
}

func (d *i2cDevice) Close() error { return d.share.Close() }

type spiUnit struct{ port *spiPort }

func (b *Board) openSPIDevice(p *hal.SPIPart) (hal.Device, error) {
	d, err := b.findSPI(p.Controller, p.Path, p.CS)
	if err != nil {
		return nil, err
	}
	port, err := b.openSPI(d, spiConfig{mode: uint32(p.Mode), bits: p.Bits, speed: p.Hz})
	if err != nil {
		return nil, err
	}
	return &spiUnit{port}, nil
}

func (u *spiUnit) Do(ctx context.Context, ops []hal.Op) error {
	if err := errors.Join(ctx.Err(), bounded(ops)); err != nil {
		return coded(KindSPI, err)
	}
	if err := u.port.do(pieces(ops)); err != nil {
		return coded(KindSPI, fmt.Errorf("%s: %w", u.port, err))
	}
	return nil
}

func (u *spiUnit) Close() error { return u.port.Close() }

func (b *Board) openPort(p *hal.SerialPart) (*tty, error) {
	d, err := b.findTTY(p.Port)
	if err != nil {
		return nil, err
	}
	return b.openTTY(d, p)
}

type serialPort struct{ port *tty }

func (b *Board) openSerial(p *hal.SerialPart) (hal.Device, error) {
	port, err := b.openPort(p)
	if err != nil {
		return nil, err
	}
	return &serialPort{port}, nil
}

// Do writes and reads each step; what came before a deadline is in Data beside the error.
func (s *serialPort) Do(ctx context.Context, ops []hal.Op) error {
	if err := bounded(ops); err != nil {
		return coded(KindSerial, err)
	}
	for i := range ops {
		o := &ops[i]
		var err error
		if o.Data, err = s.port.exchange(ctx, o.Write, o.Until, o.Read); err != nil {
			return portError(s.port.where, err)
		}
	}
	return nil
}

// portError is gone when the port hung up: a read at the end of a plugged-out port gives EOF.
func portError(where string, err error) error {
	if errors.Is(err, io.EOF) {
		err = unix.ENODEV
	}
	return coded(KindSerial, fmt.Errorf("%s: %w", where, err))
}

func (s *serialPort) Close() error { return s.port.Close() }

// modbusLine is a port or a connection that carries requests to units.
type modbusLine interface {
	do(ctx context.Context, unit byte, r modbusRequest) ([]byte, error)
}

type modbusUnit struct {
	_     apart
	share *share
	where string
	unit  byte
	tcp   bool
}

func (b *Board) openModbus(p *hal.ModbusPart) (hal.Device, error) {
	u := &modbusUnit{where: p.TCP, unit: p.Unit, tcp: p.TCP != ""}
	var err error
	if u.tcp {
		if _, _, err := net.SplitHostPort(p.TCP); err != nil {
			return nil, fmt.Errorf("address %q: %w", clip(p.TCP), unix.EINVAL)
		}
		u.share, err = b.tcps.get(p.TCP, "", func() (io.Closer, error) { return &modbusTCP{address: p.TCP}, nil })
	} else {
		s := p.Serial
		u.where = s.Port.Path + s.Port.USBPort + s.Port.USBSerial
		u.share, err = b.rtus.get(u.where, s.Mode(), func() (io.Closer, error) {
			port, err := b.openPort(s)
			if err != nil {
				return nil, err
			}
			return &modbusRTU{port: port, gap: s.Gap}, nil
		})
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

func modbusOp(o *hal.Op) (modbusRequest, error) {
	r := modbusRequest{addr: o.Addr, count: int(o.N), data: o.Write}
	switch o.Fn {
	case hal.ReadCoils:
		r.fn = readCoils
	case hal.ReadDiscrete:
		r.fn = readDiscrete
	case hal.ReadHolding:
		r.fn = readHolding
	case hal.ReadInput:
		r.fn = readInput
	case hal.WriteCoils:
		if r.fn = writeCoils; len(o.Write) == 1 {
			r.fn = writeCoil
		}
	case hal.WriteHoldings:
		if r.fn = writeRegisters; len(o.Write) == 2 {
			r.fn = writeRegister
		}
	default:
		return r, fmt.Errorf("modbus function %q: %w", clip(string(o.Fn)), errors.ErrUnsupported)
	}
	return r, nil
}

func (u *modbusUnit) Do(ctx context.Context, ops []hal.Op) error {
	line := u.share.it().(modbusLine)
	for i := range ops {
		r, err := modbusOp(&ops[i])
		if err == nil {
			ops[i].Data, err = line.do(ctx, u.unit, r)
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
