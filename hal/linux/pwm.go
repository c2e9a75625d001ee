package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// openPWM exports a channel and sets its period; its state outlives the process, only a write ends it. The order keeps duty ≤ period at
// every step, and the polarity is written only while the channel is off. A channel that already runs with this period is left alone.
func openPWM(c *device, channel int, period time.Duration) (*levelResource, error) {
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
	ns := period.Nanoseconds()
	if err := setupPWM(dir, strconv.FormatInt(ns, 10)); err != nil {
		return nil, err
	}
	return openLevel(KindPWM, filepath.Join(dir, "duty_cycle"), filepath.Join(dir, "enable"), float64(ns))
}

func setupPWM(dir, period string) error {
	was := attrOr(dir, "polarity")
	if attrOr(dir, "period") == period && was != "inversed" {
		return nil
	}
	steps := [][2]string{{"enable", "0"}, {"duty_cycle", "0"}, {"period", period}}
	if was == "inversed" {
		steps = append(steps, [2]string{"polarity", "normal"})
	}
	for _, s := range steps {
		err := setAttr(s[1], dir, s[0])
		if err != nil && s[1] != "0" { // a channel that was never configured refuses a zero, harmlessly
			return fmt.Errorf("write %s to %s of %s: %w", s[1], s[0], dir, err)
		}
	}
	return nil
}
