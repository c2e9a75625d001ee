package conn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"periph.io/x/conn/v3/gpio"
	"periph.io/x/conn/v3/physic"
)

type pin struct {
	board *Board
	name  string

	mu    sync.Mutex
	end   context.CancelFunc // of the stream of edges
	edges chan struct{}
}

var _ gpio.PinIO = (*pin)(nil)

// Pin gives the granted line name as a pin for a driver. Direction, pull and polarity are the device owner's: In and
// Out never change them, and reading an output leaves it an output.
func (b *Board) Pin(name string) (gpio.PinIO, error) {
	if err := b.granted(name); err != nil {
		return nil, err
	}
	return &pin{board: b, name: name}, nil
}

func (p *pin) String() string   { return p.name }
func (p *pin) Name() string     { return p.name }
func (p *pin) Number() int      { return -1 }
func (p *pin) Function() string { return "" }

// value is the line's logical level and writes travel as the same document.
type value struct {
	Value float64 `json:"value"`
}

func (p *pin) level() (gpio.Level, error) {
	var v value
	err := p.board.call(http.MethodGet, path(p.name, ""), nil, &v)
	return v.Value != 0, err
}

// Read is the level, Low when the agent cannot tell: the interface has no error.
func (p *pin) Read() gpio.Level {
	l, err := p.level()
	return gpio.Level(err == nil && bool(l))
}

// Out sets the level.
func (p *pin) Out(l gpio.Level) error {
	v := value{}
	if l {
		v.Value = 1
	}
	return p.board.call(http.MethodPut, path(p.name, ""), v, nil)
}

// In begins to follow edges; with NoEdge it ends that. The pull cannot be chosen here.
func (p *pin) In(pull gpio.Pull, edge gpio.Edge) error {
	if pull != gpio.PullNoChange {
		return fmt.Errorf("%s: pull %s is the device owner's to choose; pass gpio.PullNoChange: %w", p.name, pull, errors.ErrUnsupported)
	}
	if err := p.Halt(); err != nil {
		return err
	}
	if edge == gpio.NoEdge {
		_, err := p.level()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	res, err := p.board.send(ctx, http.MethodGet, path(p.name, "/events"), nil) //nolint:bodyclose // the goroutine below closes it
	if err != nil {
		cancel()
		return err
	}
	edges := make(chan struct{}, 64)
	p.mu.Lock()
	p.end, p.edges = cancel, edges
	p.mu.Unlock()
	go func() {
		defer close(edges)
		defer res.Body.Close()
		dec := json.NewDecoder(res.Body)
		for {
			var e struct {
				Edge string `json:"edge"`
			}
			if dec.Decode(&e) != nil {
				return
			}
			if e.Edge == "" || edge == gpio.RisingEdge && e.Edge != "rising" || edge == gpio.FallingEdge && e.Edge != "falling" {
				continue
			}
			select {
			case edges <- struct{}{}:
			default: // nobody waits: the oldest 64 are enough for a bool
			}
		}
	}()
	return nil
}

// WaitForEdge waits for an edge of the kind that In was told. A negative timeout is for ever. It is false after the
// timeout, after Halt, and when the agent ends the stream.
func (p *pin) WaitForEdge(timeout time.Duration) bool {
	p.mu.Lock()
	edges := p.edges
	p.mu.Unlock()
	if edges == nil {
		return false
	}
	var limit <-chan time.Time
	if timeout >= 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		limit = t.C
	}
	select {
	case _, ok := <-edges:
		return ok
	case <-limit:
		return false
	}
}

// Halt ends the stream of edges. An output keeps its level.
func (p *pin) Halt() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != nil {
		p.end()
		p.end, p.edges = nil, nil
	}
	return nil
}

func (p *pin) Pull() gpio.Pull        { return gpio.PullNoChange }
func (p *pin) DefaultPull() gpio.Pull { return gpio.PullNoChange }

// PWM needs a granted PWM channel, not a line.
func (p *pin) PWM(gpio.Duty, physic.Frequency) error {
	return fmt.Errorf("%s: PWM on a line: %w", p.name, errors.ErrUnsupported)
}
