package agent

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/supervisor"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// How often refusals and safe actions are looked for, and how soon after one report the next of a module may be: a module that is refused
// without end wears out neither the disk nor the hub.
const (
	pinAuditPace  = 2 * time.Second
	pinReportPace = time.Minute
)

// pinAudit remembers what was told of one module.
type pinAudit struct {
	denied   uint64 // that the supervisor heard of
	reported deployment.Pins
	at       time.Time
}

// auditPins tells what modules were refused of pins, buses and sensors, and what was made safe in their place: in the log, in status and in
// the reported properties of $edgeAgent, which no module can write.
func (a *Agent) auditPins(ctx context.Context) {
	told := map[string]*pinAudit{}
	tick := time.NewTicker(pinAuditPace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for module, now := range pinSums(a.hal.Counts()) {
			was := told[module]
			if was == nil {
				was = &pinAudit{}
				told[module] = was
			}
			if now.Denied > was.denied {
				a.supervisor.Offend(module, supervisor.Reaching, now.Denied-was.denied)
			}
			was.denied = now.Denied // it is less after a name was granted no more
			if now != was.reported && time.Since(was.at) >= pinReportPace {
				was.reported, was.at = now, time.Now()
				a.supervisor.Pins(module, now)
			}
		}
	}
}

// pinSums sums up by module.
func pinSums(counts []hal.Count) map[string]deployment.Pins {
	sums := map[string]deployment.Pins{}
	for _, c := range counts {
		if c.At.IsZero() {
			continue
		}
		p := sums[c.Who]
		p.Denied, p.Safe = p.Denied+c.Denied, p.Safe+c.Safe
		if c.At.After(p.At) {
			p.At, p.Last = c.At, c.Last
			if c.Name != "" {
				p.Last = c.Name + ": " + c.Last
			}
		}
		sums[c.Who] = p
	}
	return sums
}

// pinMetrics writes what modules did with pins, by module and resource.
func pinMetrics(w io.Writer, counts []hal.Count) error {
	for _, m := range []struct {
		name, help string
		value      func(*hal.Count) uint64
	}{
		{"sandpiper_hal_writes_total", "values that a module wrote", func(c *hal.Count) uint64 { return c.Writes }},
		{"sandpiper_hal_denied_total", "requests beyond what is granted; without a resource: for names that are not", func(c *hal.Count) uint64 { return c.Denied }},
		{"sandpiper_hal_safe_total", "times that an output was made safe in a module's place", func(c *hal.Count) uint64 { return c.Safe }},
	} {
		if _, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s counter\n", m.name, m.help, m.name); err != nil {
			return err
		}
		for i := range counts {
			if _, err := fmt.Fprintf(w, "%s{module=%q,resource=%q} %d\n", m.name, counts[i].Who, counts[i].Name, m.value(&counts[i])); err != nil {
				return err
			}
		}
	}
	return nil
}
