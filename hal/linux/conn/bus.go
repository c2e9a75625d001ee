package conn

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"periph.io/x/conn/v3"
	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/conn/v3/spi"
)

// transfer performs steps that nothing comes between; each R is filled.
func (b *Board) transfer(name string, steps []spi.Packet) error {
	in := transfer{Ops: make([]op, len(steps))}
	for i, s := range steps {
		in.Ops[i] = op{W: hex.EncodeToString(s.W), R: len(s.R)}
	}
	var out result
	if err := b.call(http.MethodPost, path(name, "/transfer"), in, &out); err != nil {
		return err
	}
	if len(out.Ops) != len(steps) {
		return fmt.Errorf("%s: answer with %d steps to %d", name, len(out.Ops), len(steps))
	}
	for i, s := range steps {
		got, err := hex.DecodeString(out.Ops[i].R)
		if err != nil || len(got) != len(s.R) {
			return fmt.Errorf("%s: answer with %d bytes to a read of %d", name, len(got), len(s.R))
		}
		copy(s.R, got)
	}
	return nil
}

type chip struct {
	board *Board
	name  string

	mu   sync.Mutex
	addr uint16 // that the driver uses; 0 before its first transfer
}

// I2C gives the granted chip name as a bus for a driver. The bus has one address: the first that the driver uses.
func (b *Board) I2C(name string) (i2c.BusCloser, error) {
	if err := b.granted(name); err != nil {
		return nil, err
	}
	return &chip{board: b, name: name}, nil
}

// granted asks for a name once, so that a typing error shows at the start and not at the first transfer.
func (b *Board) granted(name string) error {
	if name == "" {
		return errors.New("a resource without a name")
	}
	list, err := b.List()
	if err != nil {
		return err
	}
	for _, g := range list {
		if g.Name == name {
			return nil
		}
	}
	return &Error{Code: "unknown", Name: name, Detail: "not granted to this module"}
}

// Granted is one entry of what the module may use.
type Granted struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Rights string `json:"rights"`
	Unit   string `json:"unit"`
	State  string `json:"state"` // ok, stuck, gone, leased
}

// List says what the module was granted.
func (b *Board) List() ([]Granted, error) {
	var list []Granted
	err := b.call(http.MethodGet, "/v1/hal", nil, &list)
	return list, err
}

func (c *chip) String() string { return c.name }

// Tx writes and then reads after a repeated start.
func (c *chip) Tx(addr uint16, w, r []byte) error {
	c.mu.Lock()
	if c.addr == 0 {
		c.addr = addr
	}
	mine := c.addr
	c.mu.Unlock()
	if addr != mine {
		return fmt.Errorf("%s: address %#02x, but this bus is one chip and its driver began with %#02x", c.name, addr, mine)
	}
	return c.board.transfer(c.name, []spi.Packet{{W: w, R: r}})
}

// SetSpeed is refused: the speed is the device owner's.
func (c *chip) SetSpeed(physic.Frequency) error {
	return fmt.Errorf("%s: speed of the bus: %w", c.name, errors.ErrUnsupported)
}

func (c *chip) Close() error { return nil }

type port struct {
	board *Board
	name  string
}

// SPI gives the granted device name as a port for a driver. Mode, speed and word size are the device owner's: what a
// driver asks for in Connect is not sent.
func (b *Board) SPI(name string) (spi.PortCloser, error) {
	if err := b.granted(name); err != nil {
		return nil, err
	}
	return &port{board: b, name: name}, nil
}

func (p *port) String() string { return p.name }

func (p *port) Connect(_ physic.Frequency, mode spi.Mode, bits int) (spi.Conn, error) {
	if bits != 0 && bits != 8 {
		return nil, fmt.Errorf("%s: words of %d bits: %w", p.name, bits, errors.ErrUnsupported)
	}
	duplex := conn.Full
	if mode&spi.HalfDuplex != 0 {
		duplex = conn.Half
	}
	return &link{board: p.board, name: p.name, duplex: duplex}, nil
}

func (p *port) LimitSpeed(physic.Frequency) error {
	return fmt.Errorf("%s: speed of the device: %w", p.name, errors.ErrUnsupported)
}

func (p *port) Close() error { return nil }

type link struct {
	board  *Board
	name   string
	duplex conn.Duplex
}

func (l *link) String() string      { return l.name }
func (l *link) Duplex() conn.Duplex { return l.duplex }

// Tx moves w out and r in at the same time when both have one length.
func (l *link) Tx(w, r []byte) error { return l.TxPackets([]spi.Packet{{W: w, R: r}}) }

// TxPackets keeps the chip selected over all packets: a KeepCS that is false before the last one is refused, because
// the device would not be deselected there.
func (l *link) TxPackets(list []spi.Packet) error {
	for i, p := range list {
		switch {
		case p.BitsPerWord != 0 && p.BitsPerWord != 8:
			return fmt.Errorf("%s: words of %d bits: %w", l.name, p.BitsPerWord, errors.ErrUnsupported)
		case i < len(list)-1 && !p.KeepCS, i == len(list)-1 && p.KeepCS:
			return fmt.Errorf("%s: packet %d with KeepCS %v: %w", l.name, i, p.KeepCS, errors.ErrUnsupported)
		case len(p.W) > 0 && len(p.R) > 0 && len(p.W) != len(p.R):
			return fmt.Errorf("%s: packet %d writes %d bytes and reads %d", l.name, i, len(p.W), len(p.R))
		}
	}
	return l.board.transfer(l.name, list)
}
