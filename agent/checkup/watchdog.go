package checkup

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// watchdog tells who resets this device when its kernel hangs. Source: Documentation/ABI/testing/sysfs-class-watchdog.
func (c Config) watchdog(_ context.Context, say func(Level, string, string)) {
	list, err := filepath.Glob(filepath.Join(c.Root, "sys/class/watchdog/watchdog*"))
	if err != nil || len(list) == 0 {
		say(Warning, "the kernel has none: a device that hangs stays so until somebody pulls the plug", "build the driver of the board's watchdog, or softdog, which ends other hangs than the kernel's own")
		return
	}
	fed := false
	for _, dir := range list {
		name, identity, state, timeout := filepath.Base(dir), readLine(dir, "identity"), readLine(dir, "state"), readLine(dir, "timeout")
		if identity == "" && state == "" {
			say(Unknown, name+" does not tell its state", "build the kernel with CONFIG_WATCHDOG_SYSFS")
			return
		}
		if state != "active" {
			continue
		}
		fed = true
		what := fmt.Sprintf("%s (%s) resets the device %s s after it was last fed", name, identity, timeout)
		if strings.Contains(strings.ToLower(identity), "software") {
			say(Warning, what+"; it is software, and stands still with the kernel", "use the board's own watchdog")
		} else {
			say(Well, what, "")
		}
	}
	if !fed {
		say(Warning, "there is one, and nobody feeds it", "set RuntimeWatchdogSec in /etc/systemd/system.conf, or run a watchdog daemon")
	}
}
