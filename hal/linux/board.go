package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Config of a Board. The zero value is the device's own kernel.
type Config struct {
	Root   string       // where /sys and /dev lie; default "/"
	Logger *slog.Logger // default: discard
}

// Board is the kernel as a hal.Backend. Its methods may be called by any goroutine. What it opens is for one goroutine at a time, except
// that Close and the wait of a reader of events may run beside the others; resources on one adapter, port or chip take turns.
type Board struct {
	host
	log *slog.Logger

	rtus  pool // of *modbusRTU
	tcps  pool // of *modbusTCP
	i2cs  pool // of *i2cBus
	chips pool // of *chipSensor

	mu    sync.Mutex // guards lines
	lines map[*lineResource]struct{}
}

// NewBoard makes a Board; it opens nothing.
func NewBoard(cfg Config) (*Board, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Board{host: host{root: cfg.Root}, log: cfg.Logger, lines: map[*lineResource]struct{}{}}, nil
}

// Open finds and takes a resource; see hal.Backend. The error is an *Error and names the resource.
func (b *Board) Open(_ context.Context, r hal.Resource) (hal.Device, error) {
	dev, err := b.open(&r)
	if e, ok := err.(*Error); ok && e.Name == "" { //nolint:errorlint // one that says all by itself gets the name, a wrapped one keeps its path
		e.Name = r.Name
		return nil, e
	}
	if err != nil {
		return nil, &Error{Code: codeOf(r.Kind, err), Name: r.Name, Err: err}
	}
	return dev, nil
}

func (b *Board) open(r *hal.Resource) (hal.Device, error) {
	switch {
	case r.Line != nil:
		return b.openLine(r)
	case r.PWM != nil, r.LED != "":
		return b.openSafe(r)
	case r.I2C != nil:
		return b.openI2CDevice(r.I2C)
	case r.SPI != nil:
		return b.openSPI(r.SPI)
	case r.Serial != nil:
		return b.openTTY(r.Serial)
	case r.Modbus != nil:
		return b.openModbus(r.Modbus)
	case r.CAN != nil:
		return openCAN(r.CAN)
	case r.Sensor != nil:
		return b.openSensor(r)
	}
	return nil, fmt.Errorf("kind %q: %w", r.Kind, errors.ErrUnsupported) // nothing of a raw node is opened here
}

// Adopt takes an output back that a keeper held; see hal.Backend. PWM channels and LEDs are found again by the file behind fd.
func (b *Board) Adopt(_ context.Context, r hal.Resource, fd int) (hal.Device, error) {
	if r.Line != nil {
		l, err := b.adopt(&r, fd)
		if err != nil {
			return nil, coded(r.Kind, fmt.Errorf("adopt %s: %w", r.Name, err))
		}
		return l, nil
	}
	if !r.Output() {
		return nil, &Error{Code: CodeUnsupported, Name: r.Name, Detail: "only outputs are kept"}
	}
	l, err := b.findLevel(&r)
	if err != nil {
		return nil, coded(r.Kind, err)
	}
	if !sameFile(fd, l.value.file) {
		_ = l.Close()
		return nil, &Error{Code: CodeBusy, Name: r.Name, Detail: "the kept descriptor is of another output"}
	}
	closeFD(fd) // the fresh one is of the same file
	return l, nil
}

func sameFile(fd int, f *os.File) bool {
	var a, b unix.Stat_t
	n, err := fdOf(f)
	return err == nil && unix.Fstat(fd, &a) == nil && unix.Fstat(n, &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev
}

// subsystems are those whose changes can matter to resources, each with a kind to which.
var subsystems = [...]struct {
	name string
	kind Kind
}{
	{"gpio", KindLine}, {"pwm", KindPWM}, {"leds", KindLED}, {"tty", KindSerial}, {"tty", KindModbus}, {"net", KindCAN}, {"spi", KindSPI}, {"spidev", KindSPI},
	{"i2c", KindI2C}, {"i2c", KindSensor}, {"i2c-dev", KindI2C}, {"i2c-dev", KindSensor}, {"iio", KindSensor}, {"hwmon", KindSensor}, {"thermal", KindSensor},
	{"power_supply", KindSensor}, {"w1", KindSensor}, {"usb", hal.KindNode}, // whose parts say more
}

// concerns says whether a change of a subsystem can matter to a kind of resources; "" = to any.
func concerns(subsystem string, k Kind) bool {
	for _, s := range subsystems {
		if s.name == subsystem && (k == "" || k == s.kind) {
			return true
		}
	}
	return false
}

// Changes listens to the kernel until the context ends and then closes the channel; see hal.Backend. A departure matches what cannot be
// found any more. A receiver whom the kernel could not tell all finds a Change that matches anything. Without
// uevents (a container) the channel is closed at once.
func (b *Board) Changes(ctx context.Context) <-chan hal.Change {
	out := make(chan hal.Change, 64)
	s, err := openUevents()
	if err != nil {
		b.log.Warn("hot-plug is not seen", "err", err)
		close(out)
		return out
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() { // ends with the socket, which ends with ctx
		defer close(out)
		defer stop()
		b.follow(ctx, s, out)
	}()
	return out
}

func (b *Board) follow(ctx context.Context, s *ueventSocket, out chan<- hal.Change) {
	for {
		u, err := s.read()
		missed := errors.Is(err, errMissed)
		switch {
		case missed:
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			b.log.Warn("hot-plug is not seen any more", "err", err)
			return
		}
		if !missed && !concerns(u.subsystem, "") {
			continue
		}
		c := hal.Change{Present: u.action != "remove", Node: u.devpath}
		if !c.Present || missed {
			b.dropGone()
		}
		if !missed {
			c.Match = func(r hal.Resource) bool {
				return concerns(u.subsystem, r.Kind) && (c.Present || b.absent(&r))
			}
		}
		select {
		case out <- c: // a receiver that is late makes the kernel's buffer run over, which is seen above
		case <-ctx.Done():
			return
		}
	}
}

// absent says whether a resource is not to be found, without touching it.
func (b *Board) absent(r *hal.Resource) bool {
	var err error
	switch {
	case r.Line != nil:
		_, err = b.findChip(r.Line.Chip, r.Line.Path)
	case r.PWM != nil:
		_, err = b.findClass(&pwmClass, "", r.PWM.Chip)
	case r.LED != "":
		return !exists(b.path("sys/class/leds", r.LED))
	case r.I2C != nil:
		_, err = b.findAdapter(r.I2C.Adapter, r.I2C.Path)
	case r.SPI != nil:
		_, err = b.findSPI(r.SPI.Controller, r.SPI.Path, r.SPI.CS)
	case r.Serial != nil:
		err = b.noPort(r.Serial)
	case r.Modbus != nil && r.Modbus.Serial != nil:
		err = b.noPort(r.Modbus.Serial)
	case r.CAN != nil:
		_, err = interfaceIndex(r.CAN.Interface)
		return err != nil
	case r.Sensor != nil:
		var dev hal.Device
		if dev, err = b.open(r); err == nil {
			_ = dev.Close() // it was opened to see that it is there
		}
	}
	return err != nil && codeOf(r.Kind, err) == CodeGone
}

func (b *Board) noPort(p *hal.SerialPart) error {
	d, err := b.findTTY(p)
	if err == nil && !exists(d.node) {
		err = unix.ENODEV
	}
	return err
}

// dropGone ends the readers of lines whose chip was plugged out: Linux 6.1 does not wake them, 6.12 does.
func (b *Board) dropGone() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.lines {
		if _, err := l.get(); err != nil && codeOf(KindLine, err) == CodeGone {
			l.gone.Store(true)
			_ = l.file.Close()
			delete(b.lines, l)
		}
	}
}

// fdOf is a file's descriptor: for a copy, or to look at.
func fdOf(f *os.File) (n int, err error) {
	err = onFD(f, func(fd int) error { n = fd; return nil })
	return n, err
}

// short keeps a label within the kernel's 31 bytes and one line.
func short(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 31)]
}
