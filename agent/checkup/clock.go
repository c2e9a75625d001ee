package checkup

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// built is before any build of this program: a clock that says less is wrong.
var built = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// clock tells whether the time is known. Nothing on the device needs it but certificates of others do, and time stamps are better with it.
// Source: adjtimex(2), STA_UNSYNC.
func (c Config) clock(_ context.Context, say func(Level, string, string)) {
	now := c.Now().UTC()
	if now.Before(built) {
		say(Bad, "it says "+now.Format(time.RFC3339)+": certificates of the hub and of registries are not valid yet", "run an NTP client, or fit a clock chip with a battery")
		return
	}
	var t unix.Timex // Modes 0: ask, set nothing
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		say(Unknown, "the kernel does not tell whether it is synchronised: "+err.Error(), "")
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		say(Warning, now.Format(time.RFC3339)+", not synchronised", "run an NTP client (chrony, systemd-timesyncd) if the network has a server")
	default:
		say(Well, now.Format(time.RFC3339)+", synchronised", "")
	}
	if found, err := filepath.Glob(filepath.Join(c.Root, "sys/class/rtc/rtc*")); err == nil && len(found) == 0 {
		say(Warning, "there is no clock chip: after a power cut the time is unknown until the network is back", "messages of that time are dated when it is known; fit a chip if certificates must be checked offline")
	}
}

// readLine is the first line of a small file of the kernel, "" when it cannot be read.
func readLine(path ...string) string {
	raw, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	return strings.TrimSpace(line)
}
