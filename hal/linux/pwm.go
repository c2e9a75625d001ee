package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pwmChip is a controller of /sys/class/pwm; n is its number of channels.
type pwmChip struct{ *device }

func (h host) pwmChips() []*device {
	var list []*device
	for _, n := range h.class("pwm") {
		if strings.HasPrefix(n, "pwmchip") {
			d := deviceOf(h.path("sys/class/pwm", n), false)
			d.n, _ = strconv.Atoi(attrOr(d.dir, "npwm"))
			list = append(list, d)
		}
	}
	return sorted(list)
}

func (h host) findPWM(name, path string) (pwmChip, error) {
	d, err := h.find("PWM controller", name, path, h.pwmChips(), nil)
	return pwmChip{d}, err
}

// pwm is one exported channel. Its state outlives the process: only a write ends it. Each attribute's descriptor is
// kept, the duty cycle's for the warden too.
type pwm struct {
	_      apart
	dir    string
	duty   *os.File
	enable *os.File
	period time.Duration
	inv    bool
}

// openPWM exports a channel and sets its period. The order keeps duty ≤ period at every step, and the polarity is
// written only while the channel is off. A channel that already runs with this period and polarity is left alone.
func (c pwmChip) openPWM(channel int, period time.Duration, inverted bool) (*pwm, error) {
	if channel < 0 || c.n > 0 && channel >= c.n {
		return nil, fmt.Errorf("channel %d of %s: %w: it has channels 0 to %d", channel, c, fs.ErrNotExist, c.n-1)
	}
	if period <= 0 {
		return nil, fmt.Errorf("period %s of %s: %w", period, c, unix.EINVAL)
	}
	dir := filepath.Join(c.dir, "pwm"+strconv.Itoa(channel))
	if !exists(dir) {
		if err := setAttr(strconv.Itoa(channel), c.dir, "export"); err != nil {
			if errors.Is(err, unix.EBUSY) {
				return nil, inUse(fmt.Sprintf("channel %d of %s", channel, c), "a kernel driver")
			}
			return nil, fmt.Errorf("export channel %d of %s: %w", channel, c, err)
		}
	}
	p := &pwm{dir: dir, period: period, inv: inverted}
	if err := p.setup(); err != nil {
		return nil, err
	}
	var err error
	if p.duty, err = os.OpenFile(filepath.Join(dir, "duty_cycle"), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if p.enable, err = os.OpenFile(filepath.Join(dir, "enable"), os.O_RDWR, 0); err != nil {
		return nil, joinClose(err, p.duty)
	}
	return p, nil
}

func (p *pwm) setup() error {
	polarity := "normal"
	if p.inv {
		polarity = "inversed"
	}
	ns := strconv.FormatInt(p.period.Nanoseconds(), 10)
	was := attrOr(p.dir, "polarity")
	if attrOr(p.dir, "period") == ns && (was == polarity || was == "") {
		return nil
	}
	steps := [][2]string{{"enable", "0"}, {"duty_cycle", "0"}, {"period", ns}}
	if was != "" && was != polarity {
		steps = append(steps, [2]string{"polarity", polarity})
	}
	for _, s := range steps {
		err := setAttr(s[1], p.dir, s[0])
		if err != nil && s[1] != "0" { // a channel that was never configured refuses a zero, harmlessly
			return fmt.Errorf("write %s to %s of %s: %w", s[1], s[0], p.dir, err)
		}
	}
	return nil
}

// set makes the output high for a share of the period, 0 to 1. Zero keeps the channel on with no pulse, because a
// disabled channel's level is the controller's choice.
func (p *pwm) set(duty float64) error {
	if !(duty >= 0 && duty <= 1) {
		return fmt.Errorf("duty %v: %w", duty, unix.ERANGE)
	}
	if _, err := p.duty.WriteAt(p.dutyBytes(duty), 0); err != nil {
		return fmt.Errorf("write the duty cycle of %s: %w", p.dir, err)
	}
	if _, err := p.enable.WriteAt([]byte("1"), 0); err != nil {
		return fmt.Errorf("enable %s: %w", p.dir, err)
	}
	return nil
}

// dutyBytes is what sets a duty cycle when written at offset 0 of the descriptor: the warden's safe action.
func (p *pwm) dutyBytes(duty float64) []byte {
	return append(strconv.AppendInt(nil, int64(duty*float64(p.period.Nanoseconds())+0.5), 10), '\n')
}

// get is the duty cycle now, 0 to 1; a disabled channel has none.
func (p *pwm) get() (float64, error) {
	on, err := attr(p.dir, "enable")
	if err != nil {
		return 0, err
	}
	d, err := attr(p.dir, "duty_cycle")
	if err != nil {
		return 0, err
	}
	v, err := number(d)
	if err != nil || on == "0" {
		return 0, err
	}
	return v / float64(p.period.Nanoseconds()), nil
}

func (p *pwm) Close() error { return joinClose(p.duty.Close(), p.enable) }
