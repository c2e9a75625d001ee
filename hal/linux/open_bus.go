package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// pieces makes room for what each step reads.
func pieces(ops []Op) []piece {
	list := make([]piece, len(ops))
	for i := range ops {
		if ops[i].R > 0 {
			ops[i].Got = make([]byte, ops[i].R)
		}
		list[i] = piece{w: ops[i].W, r: ops[i].Got}
	}
	return list
}

// maxRead bounds what one call reads from a bus: the limit of one message times the most messages is far above it.
const maxRead = 64 << 10

func bounded(ops []Op) error {
	total := 0
	for _, o := range ops {
		if o.R < 0 || o.R > maxRead || len(o.W) > maxRead {
			return fmt.Errorf("step of %d and %d bytes: %w", len(o.W), o.R, unix.EMSGSIZE)
		}
		total += o.R + len(o.W)
	}
	if total > maxRead {
		return fmt.Errorf("%d bytes in one call, at most %d: %w", total, maxRead, unix.EMSGSIZE)
	}
	return nil
}

type i2cDevice struct {
	bus  *share[*i2cBus]
	addr uint16
	safe []byte
	own  int // a descriptor of its own that speaks to this address only, for the safe action; -1 without
}

func (b *Backend) shareI2C(r Resource) (*share[*i2cBus], error) {
	a, err := b.findAdapter(r.Match.Adapter, r.Match.Path)
	if err != nil {
		return nil, err
	}
	return b.i2cs.get(a.node, "", func() (*i2cBus, error) {
		bus, err := b.host.openI2C(a)
		if err != nil || r.Wiring.Timeout <= 0 {
			return bus, err
		}
		if err := bus.setTimeout(r.Wiring.Timeout); err != nil {
			return nil, joinClose(err, bus)
		}
		return bus, nil
	})
}

func (b *Backend) openI2CDevice(r Resource) (*i2cDevice, error) {
	if r.Match.Addr < 0x08 || r.Match.Addr > 0x77 {
		return nil, fmt.Errorf("address %#02x: want 0x08 to 0x77: %w", r.Match.Addr, unix.ERANGE)
	}
	s, err := b.shareI2C(r)
	if err != nil {
		return nil, err
	}
	if err := s.it().free(r.Match.Addr); err != nil {
		return nil, joinClose(err, s)
	}
	d := &i2cDevice{bus: s, addr: r.Match.Addr, safe: r.SafeWrite, own: -1}
	if d.safe == nil {
		return d, nil
	}
	if d.own, err = s.it().alone(d.addr); err != nil {
		return nil, joinClose(err, s)
	}
	return d, nil
}

// alone opens the adapter once more for one address: plain writes to that descriptor reach it.
func (b *i2cBus) alone(addr uint16) (int, error) {
	if b.funcs&funcI2C == 0 {
		return -1, fmt.Errorf("safe bytes for address %#02x on %s: %w", addr, b, errShape)
	}
	fd, err := unix.Open(b.node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: b.node, Err: err}
	}
	if err := ioctlInt(fd, i2cSlave, uintptr(addr)); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("take address %#02x on %s: %w", addr, b, err)
	}
	return fd, nil
}

// FD is refused for a chip without safe bytes: there is nothing to keep of it.
func (d *i2cDevice) FD(float64) (int, hal.SafeAction, error) {
	if d.own < 0 {
		return -1, hal.SafeAction{}, coded(KindI2C, fmt.Errorf("address %#02x: no safe bytes: %w", d.addr, errors.ErrUnsupported))
	}
	return d.own, hal.SafeAction{Bytes: d.safe}, nil
}

func (d *i2cDevice) Do(ctx context.Context, ops []Op) error {
	if err := errors.Join(ctx.Err(), bounded(ops)); err != nil {
		return coded(KindI2C, err)
	}
	return i2cError(d.bus, d.addr, d.bus.it().guarded(d.addr, pieces(ops)))
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
func i2cError(s *share[*i2cBus], addr uint16, err error) error {
	if err == nil {
		return nil
	}
	bus := s.it()
	err = fmt.Errorf("address %#02x on %s: %w", addr, bus, err)
	if errnoOf(err) != unix.ENODEV {
		return coded(KindI2C, err)
	}
	if exists(bus.h.path("sys/class/i2c-dev", baseName(bus.node))) {
		return &Error{Code: CodeNACK, Err: err}
	}
	s.forget()
	return &Error{Code: CodeGone, Err: err}
}

func (d *i2cDevice) Close() error {
	if d.own >= 0 {
		closeFD(d.own)
		d.own = -1
	}
	return d.bus.Close()
}

type spiUnit struct{ port *spiPort }

func (b *Backend) openSPIDevice(r Resource) (*spiUnit, error) {
	d, err := b.findSPI(r.Match.Controller, r.Match.Path, r.Match.CS)
	if err != nil {
		return nil, err
	}
	p, err := b.host.openSPI(d, spiConfig{mode: r.Wiring.SPIMode, bits: r.Wiring.Bits, speed: r.Wiring.Speed})
	if err != nil {
		return nil, err
	}
	return &spiUnit{p}, nil
}

func (u *spiUnit) Do(ctx context.Context, ops []Op) error {
	if err := errors.Join(ctx.Err(), bounded(ops)); err != nil {
		return coded(KindSPI, err)
	}
	if err := u.port.do(pieces(ops)); err != nil {
		return coded(KindSPI, fmt.Errorf("%s: %w", u.port, err))
	}
	return nil
}

func (u *spiUnit) Close() error { return u.port.Close() }

func (b *Backend) openPort(r Resource) (*tty, error) {
	mode, err := parseSerialMode(r.Wiring.Mode)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	d, err := b.findTTY(r.Match.Path, r.Match.USBPort, r.Match.USBSerial)
	if err != nil {
		return nil, err
	}
	return b.openTTY(d, mode, r.Wiring.RS485.kernel())
}

func (r *RS485) kernel() *rs485 {
	if r == nil {
		return nil
	}
	k := &rs485{flags: rs485Enabled, before: uint32(r.Before.Milliseconds()), after: uint32(r.After.Milliseconds())}
	if r.RTSOnSend {
		k.flags |= rs485RTSOnSend
	}
	if r.RTSAfterSend {
		k.flags |= rs485RTSAfterSend
	}
	if r.ReceiveWhileSending {
		k.flags |= rs485RXDuringTX
	}
	return k
}

type serialPort struct{ port *tty }

func (b *Backend) openSerial(r Resource) (*serialPort, error) {
	p, err := b.openPort(r)
	if err != nil {
		return nil, err
	}
	return &serialPort{p}, nil
}

// Do writes and reads each step; what came before a deadline is in Got beside the error.
func (s *serialPort) Do(ctx context.Context, ops []Op) error {
	if err := bounded(ops); err != nil {
		return coded(KindSerial, err)
	}
	for i := range ops {
		got, err := s.port.exchange(ctx, ops[i].W, ops[i].Until, ops[i].R)
		ops[i].Got = got
		if err != nil {
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

type modbusUnit struct {
	share io.Closer
	line  func(context.Context, byte, modbusRequest) ([]byte, error)
	where string
	unit  byte
	gone  func()
}

func (b *Backend) openModbus(r Resource) (*modbusUnit, error) {
	if r.Match.Address != "" {
		if _, _, err := net.SplitHostPort(r.Match.Address); err != nil {
			return nil, fmt.Errorf("address %q: %w", clip(r.Match.Address), unix.EINVAL)
		}
		s, err := b.tcps.get(r.Match.Address, "", func() (*modbusTCP, error) { return &modbusTCP{address: r.Match.Address}, nil })
		if err != nil {
			return nil, err
		}
		return &modbusUnit{share: s, line: s.it().do, where: r.Match.Address, unit: r.Match.Unit}, nil
	}
	key := r.Match.Path + r.Match.USBPort + r.Match.USBSerial
	s, err := b.rtus.get(key, r.Wiring.Mode, func() (*modbusRTU, error) {
		p, err := b.openPort(r)
		if err != nil {
			return nil, err
		}
		return &modbusRTU{port: p, gap: r.Wiring.Gap}, nil
	})
	if err != nil {
		return nil, err
	}
	return &modbusUnit{share: s, line: s.it().do, where: s.it().port.where, unit: r.Match.Unit, gone: s.forget}, nil
}

func modbusOp(o Op) (modbusRequest, error) {
	r := modbusRequest{addr: o.Addr, count: o.N, data: o.W}
	switch o.Fn {
	case "read-coil":
		r.fn = readCoils
	case "read-discrete":
		r.fn = readDiscrete
	case "read-holding":
		r.fn = readHolding
	case "read-input":
		r.fn = readInput
	case "write-coil":
		if r.fn = writeCoils; len(o.W) == 1 {
			r.fn = writeCoil
		}
	case "write-holding":
		if r.fn = writeRegisters; len(o.W) == 2 {
			r.fn = writeRegister
		}
	default:
		return r, fmt.Errorf("modbus function %q: %w", clip(o.Fn), errors.ErrUnsupported)
	}
	return r, nil
}

func (u *modbusUnit) Do(ctx context.Context, ops []Op) error {
	for i := range ops {
		r, err := modbusOp(ops[i])
		if err == nil {
			ops[i].Got, err = u.line(ctx, u.unit, r)
		}
		if err != nil {
			err = portError("unit "+strconv.Itoa(int(u.unit))+" on "+u.where, err)
			if e, ok := errors.AsType[*Error](err); u.gone != nil && ok && e.Code == CodeGone {
				u.gone()
			}
			return err
		}
	}
	return nil
}

func (u *modbusUnit) Close() error { return u.share.Close() }

type canUnit struct{ sock *canSocket }

func (b *Backend) openCAN(r Resource) (*canUnit, error) {
	var list []canFilter
	for _, m := range r.Wiring.Receive {
		f := canFilter{id: m.ID, mask: m.Mask | canEFF | canRTR}
		if m.Extended {
			f.id |= canEFF
		}
		list = append(list, f)
	}
	s, err := openCAN(r.Match.Interface, list)
	if err != nil {
		return nil, err
	}
	return &canUnit{s}, nil
}

func (u *canUnit) Do(ctx context.Context, ops []Op) error {
	for _, o := range ops {
		f := canFrame{id: o.Frame.ID, extended: o.Frame.Extended, remote: o.Frame.Remote, fd: o.Frame.FD, data: o.Frame.Data}
		err := ctx.Err()
		if err == nil {
			err = u.sock.send(f)
		}
		if err != nil {
			return coded(KindCAN, fmt.Errorf("send on %s: %w", u.sock.name, err))
		}
	}
	return nil
}

// Receive waits for a frame that the wiring lets pass; Close ends it with os.ErrClosed.
func (u *canUnit) Receive() (Frame, error) {
	f, err := u.sock.receive()
	if err != nil {
		if errors.Is(err, os.ErrClosed) {
			return Frame{}, err
		}
		return Frame{}, coded(KindCAN, fmt.Errorf("receive on %s: %w", u.sock.name, err))
	}
	return Frame{ID: f.id, Extended: f.extended, Remote: f.remote, FD: f.fd, Data: f.data, Time: time.Unix(0, f.wall), Lost: f.lost}, nil
}

func (u *canUnit) Close() error { return u.sock.Close() }
