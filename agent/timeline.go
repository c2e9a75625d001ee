package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

const (
	// bootsKey is the document with the boots that messages in the queue may be of.
	bootsKey = "agent/boots"
	// bootsKept bounds them: a device that never knows the time in so many boots gives the oldest a time that is too late.
	bootsKept = 64
	// bootPace is how often it is noted how long the device is up, and looked whether the time is known.
	bootPace = time.Minute
)

// timeline finds the time of what happened before the device knew it. In the boot in which it becomes known that is exact; a boot in
// which it never did lies between the one before and the one after.
type timeline struct {
	boot   string               // the kernel's id of this boot
	uptime func() time.Duration // since its start, suspended time included
	now    func() time.Time     // time as the hub has it
	known  func() bool          // whether now can be believed
	docs   twin.Docs
	logger *slog.Logger

	mu     sync.Mutex // guards what follows
	boots  []bootDoc  // oldest first; the last is this one
	stored []byte
}

// bootDoc is one boot of the device.
type bootDoc struct {
	ID    string    `json:"id"`
	Start time.Time `json:"start,omitzero"` // zero = the time was never known in it
	Up    int64     `json:"up"`             // seconds, as last noted
}

// newTimeline reads the boots before this one.
func newTimeline(t *timeline) *timeline {
	raw, err := t.docs.Get(bootsKey)
	if err == nil && raw != nil {
		err = json.Unmarshal(raw, &t.boots)
	}
	if err != nil {
		t.logger.Warn("earlier boots are not known any more", "err", err)
		t.boots = nil
	}
	if n := len(t.boots); n == 0 || t.boots[n-1].ID != t.boot {
		t.boots = append(t.boots, bootDoc{ID: t.boot})
	}
	t.boots = t.boots[max(0, len(t.boots)-bootsKept):]
	return t
}

// untimed says where on the timeline this moment is, as long as the time is not known.
func (t *timeline) untimed() (boot string, uptime time.Duration, untimed bool) {
	if t.known() {
		return "", 0, false
	}
	return t.boot, t.uptime(), true
}

// made is the time of a moment that untimed named, and how much too late it may be. False as long as the time is not known.
func (t *timeline) made(boot string, uptime time.Duration) (at time.Time, within time.Duration, ok bool) {
	if !t.known() {
		return time.Time{}, 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteLocked()
	i := len(t.boots) - 1
	for i >= 0 && t.boots[i].ID != boot {
		i--
	}
	if i < 0 { // forgotten: before the oldest that is known
		return t.boots[0].Start, 0, !t.boots[0].Start.IsZero()
	}
	if start := t.boots[i].Start; !start.IsZero() {
		return start.Add(uptime), 0, true
	}
	latest := t.boots[len(t.boots)-1].Start // this boot's is known
	for j := len(t.boots) - 1; j > i; j-- { // each boot between ended before the next began
		if b := t.boots[j]; !b.Start.IsZero() {
			latest = b.Start
		} else {
			latest = latest.Add(-time.Duration(b.Up) * time.Second)
		}
	}
	up := time.Duration(t.boots[i].Up) * time.Second
	latest = latest.Add(-max(0, up-uptime))
	for j := i - 1; j >= 0; j-- {
		if b := t.boots[j]; !b.Start.IsZero() {
			earliest := b.Start.Add(time.Duration(b.Up) * time.Second).Add(uptime)
			return latest, max(0, latest.Sub(earliest)), true
		}
	}
	return latest, 100 * 365 * 24 * time.Hour, true // nothing is known of the time before
}

// noteLocked brings this boot up to date.
func (t *timeline) noteLocked() {
	b := &t.boots[len(t.boots)-1]
	b.Up = int64(t.uptime().Seconds())
	if !t.known() {
		return
	}
	start := t.now().Add(-t.uptime()).UTC()
	if b.Start.IsZero() || b.Start.Sub(start).Abs() > time.Second { // the clock was set, or set better
		b.Start = start
	}
}

// encodeBoots is the document. The caller holds the lock.
func encodeBoots(t *timeline) ([]byte, error) { return json.Marshal(t.boots) }

// Run notes the time of this boot until ctx ends.
func (t *timeline) Run(ctx context.Context) error {
	pace := time.NewTicker(bootPace)
	defer pace.Stop()
	last := int64(-1)
	for {
		t.mu.Lock()
		knew := !t.boots[len(t.boots)-1].Start.IsZero()
		t.noteLocked()
		b := t.boots[len(t.boots)-1]
		raw, err := encodeBoots(t)
		// Hourly is enough while the time is known: a moment of this boot is then exact anyhow.
		due := last < 0 || knew == b.Start.IsZero() || b.Start.IsZero() || b.Up-last >= 3600
		t.mu.Unlock()
		if err == nil && due && !bytes.Equal(raw, t.stored) {
			if err = t.docs.Put(ctx, bootsKey, raw); err == nil {
				t.stored, last = raw, b.Up
			}
		}
		if err != nil && ctx.Err() == nil {
			t.logger.Warn("this boot is not noted", "err", err)
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// kernelBoot names this boot of the kernel.
func kernelBoot() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return string(bytes.TrimSpace(raw)), nil
}

// kernelUptime is how long the kernel is up, suspended time included.
func kernelUptime() time.Duration {
	var at unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &at) != nil { // it is there since Linux 2.6.39
		return 0
	}
	return time.Duration(at.Nano())
}
