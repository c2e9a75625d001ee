package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Config of a Backend. The zero value is the device's own kernel.
type Config struct {
	Root   string       // where /sys and /dev lie; default "/"
	Logger *slog.Logger // default: discard
}

// Backend opens what the device owner named. Its methods may be called by any goroutine. What it opens is for one
// goroutine at a time, except that Close and an EdgeReader's or Receiver's wait may run beside the others; resources
// on one adapter, port or chip take turns.
type Backend struct {
	host
	log *slog.Logger

	rtus  pool[*modbusRTU]
	tcps  pool[*modbusTCP]
	i2cs  pool[*i2cBus]
	chips pool[*chipSensor]

	mu    sync.Mutex // guards lines
	lines map[*lineResource]struct{}
}

// New makes a Backend; it opens nothing.
func New(cfg Config) (*Backend, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Backend{host: host{root: cfg.Root}, log: cfg.Logger, lines: map[*lineResource]struct{}{}}, nil
}

// Open finds and takes a resource: a Line, Level, Bus (for CAN a Receiver too) or Sensor by its kind. Outputs are
// Holders. The error is an *Error and names the resource.
func (b *Backend) Open(r Resource) (any, error) {
	got, err := b.open(r)
	if err != nil {
		return nil, &Error{Code: codeOfAny(r.Kind, err), Name: r.Name, Err: err}
	}
	return got, nil
}

func (b *Backend) open(r Resource) (any, error) {
	switch r.Kind {
	case KindLine:
		return b.openLine(r)
	case KindPWM:
		return b.openPWM(r)
	case KindLED:
		return b.openLight(r)
	case KindI2C:
		return b.openI2CDevice(r)
	case KindSPI:
		return b.openSPIDevice(r)
	case KindSerial:
		return b.openSerial(r)
	case KindModbus:
		return b.openModbus(r)
	case KindCAN:
		return b.openCAN(r)
	case KindSensor:
		return b.openSensor(r)
	case hal.KindNode: // nothing of it is opened here
	}
	return nil, fmt.Errorf("kind %q: %w", r.Kind, errors.ErrUnsupported)
}

// watched are the subsystems whose changes can matter to a resource.
var watched = [...]string{"gpio", "i2c", "i2c-dev", "spi", "spidev", "tty", "iio", "hwmon", "thermal", "power_supply", "pwm", "leds", "w1", "net", "usb"}

// Changes listens to the kernel until the context ends and then closes the channel. A receiver that is late finds one
// Change with Lost set. Without uevents (a container) the channel is closed at once.
func (b *Backend) Changes(ctx context.Context) <-chan Change {
	out := make(chan Change, 64)
	s, err := openUevents()
	if err != nil {
		b.log.Warn("hot-plug is not seen", "err", err)
		close(out)
		return out
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() {
		defer close(out)
		defer stop()
		b.follow(s, out)
	}()
	return out
}

func (b *Backend) follow(s *ueventSocket, out chan Change) {
	missed := false
	for {
		u, err := s.read()
		c := Change{Subsystem: u.subsystem, Action: u.action, Path: u.devpath}
		switch {
		case errors.Is(err, errMissed):
			c = Change{Lost: true}
			b.dropGone()
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			b.log.Warn("hot-plug is not seen any more", "err", err)
			return
		case !matters(u.subsystem):
			continue
		case u.subsystem == "gpio" && u.action == "remove":
			b.dropGone()
		}
		c.Lost = c.Lost || missed
		select {
		case out <- c:
			missed = false
		default:
			missed = true
		}
	}
}

func matters(subsystem string) bool {
	for _, w := range watched {
		if w == subsystem {
			return true
		}
	}
	return false
}

// dropGone ends the readers of lines whose chip was plugged out: Linux 6.1 does not wake them, 6.12 does.
func (b *Backend) dropGone() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.lines {
		if _, err := l.req.get(); err != nil && codeOf(KindLine, err) == CodeGone {
			l.gone.Store(true)
			_ = l.req.Close()
			delete(b.lines, l)
		}
	}
}

// fdOf is a file's descriptor without changing how it waits, as Fd would.
func fdOf(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = raw.Control(func(fd uintptr) { n = int(fd) })
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
