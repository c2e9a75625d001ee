package agent

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Store bounds the durable store.
type Store struct {
	MaxBytes     Size    `toml:"max_bytes"`      // all queues together; default a quarter of the partition
	MaxAge       Age     `toml:"max_age"`        // of a message, whatever its route says; default no bound
	MaxMessages  int64   `toml:"max_messages"`   // all queues together; default no bound
	MinFree      Size    `toml:"min_free"`       // of the partition, left to others; default 64 MiB, or an eighth of a small one
	DailyWrites  Size    `toml:"daily_writes"`   // budget of bytes written to the flash in a day; default none
	AtDailyLimit AtLimit `toml:"at_daily_limit"` // what happens then; default linger
}

// problems lists what is wrong with the values together.
func (s Store) problems(bad func(key, format string, args ...any)) {
	for key, size := range map[string]Size{"store.max_bytes": s.MaxBytes, "store.daily_writes": s.DailyWrites} {
		if size != 0 && size < 1<<20 {
			bad(key, "%d bytes is too small; want at least 1MiB", size)
		}
	}
	if s.MaxMessages < 0 {
		bad("store.max_messages", "%d is negative; want a number of messages, or 0 for no bound", s.MaxMessages)
	}
	if s.AtDailyLimit != "" && s.DailyWrites == 0 {
		bad("store.at_daily_limit", "there is no daily_writes that it could be at; give both or neither")
	}
}

// AtLimit is what the store does when a day's budget of writes is used up.
type AtLimit string

// What happens at the daily limit. Linger lets commits wait for one another, ever longer; relaxed acknowledges from memory; refuse
// acknowledges nothing until the day is over.
const (
	AtLimitLinger  AtLimit = "linger"
	AtLimitRelaxed AtLimit = "relaxed"
	AtLimitRefuse  AtLimit = "refuse"
)

// UnmarshalText reads what happens at the limit.
func (a *AtLimit) UnmarshalText(text []byte) error {
	switch v := AtLimit(text); v {
	case AtLimitLinger, AtLimitRelaxed, AtLimitRefuse:
		*a = v
		return nil
	}
	return fmt.Errorf("%q is not what can happen at the limit; want linger, relaxed or refuse", text)
}

// Age is a length of time, written as Go writes one, or in days: "90m", "12h", "30d".
type Age time.Duration

// UnmarshalText reads an age.
func (a *Age) UnmarshalText(text []byte) error {
	d, err := ParseAge(string(text))
	*a = Age(d)
	return err
}

// ParseAge reads a length of time of at least a second and at most a hundred years.
func ParseAge(text string) (time.Duration, error) {
	const most = 100 * 365 * 24 * time.Hour
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		if n, err = strconv.ParseUint(days, 10, 16); err == nil {
			d = time.Duration(min(n, 40_000)) * 24 * time.Hour
		}
	}
	if err != nil || d < time.Second || d > most {
		return 0, fmt.Errorf(`%q is not a length of time; want at least a second, such as "90m", "12h" or "30d"`, text)
	}
	return d, nil
}
