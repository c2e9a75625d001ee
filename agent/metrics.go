package agent

import (
	"fmt"
	"io"

	"github.com/sandpiper-edge/sandpiper/store"
)

// metrics writes what is counted, in the text format of Prometheus.
func (a *Agent) metrics(w io.Writer) error {
	u := a.store.Usage()
	for _, m := range []struct {
		name, kind, help string
		value            uint64
	}{
		{"sandpiper_store_held_bytes", "gauge", "message files on disk", uint64(u.Held)},
		{"sandpiper_store_limit_bytes", "gauge", "what message files may take", uint64(u.Limit)},
		{"sandpiper_store_free_bytes", "gauge", "free on the partition", uint64(u.Free)},
		{"sandpiper_store_records_total", "counter", "messages made durable", u.Records},
		{"sandpiper_store_commits_total", "counter", "commits", u.Commits},
		{"sandpiper_store_flushes_total", "counter", "flushes of the disk's cache", u.Flushes},
		{"sandpiper_store_written_bytes_total", "counter", "written by the store, without what the file system adds", u.Written},
		{"sandpiper_store_damaged_files_total", "counter", "files put aside", u.DamagedFiles},
		{"sandpiper_store_full", "gauge", "1 while a full store takes no message", flag(u.Full)},
		{"sandpiper_store_failing", "gauge", "1 while the disk takes no message", flag(u.Failing)},
		{"sandpiper_store_day_written_bytes", "gauge", "written in the last day switched on", uint64(a.wear.written())},
		{"sandpiper_store_day_budget_bytes", "gauge", "what may be written in a day, 0 = no bound", uint64(a.cfg.Store.DailyWrites)},
	} {
		if _, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", m.name, m.help, m.name, m.kind, m.name, m.value); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(w, "# HELP sandpiper_acknowledged_total messages taken, by what an acknowledgement meant\n# TYPE sandpiper_acknowledged_total counter\n"+
		"sandpiper_acknowledged_total{durability=\"strict\"} %d\nsandpiper_acknowledged_total{durability=\"relaxed\"} %d\n",
		a.pacer.strict.Load(), a.pacer.relaxed.Load()); err != nil {
		return err
	}
	if err := queueMetrics(w, a.store.Queue().Stats()); err != nil {
		return err
	}
	if a.hal != nil {
		if err := pinMetrics(w, a.hal.Counts()); err != nil {
			return err
		}
	}
	if a.upstream == nil {
		return nil
	}
	return a.upstream.WriteMetrics(w)
}

func flag(on bool) uint64 {
	if on {
		return 1
	}
	return 0
}

// queueMetrics writes a lane's counters, by sink and priority.
func queueMetrics(w io.Writer, lanes []store.SinkStats) error {
	for _, m := range []struct {
		name, kind, help string
		value            func(store.SinkStats) uint64
	}{
		{"sandpiper_queue_messages", "gauge", "messages that wait", func(s store.SinkStats) uint64 { return uint64(s.Messages) }},
		{"sandpiper_queue_bytes", "gauge", "bytes of messages that wait", func(s store.SinkStats) uint64 { return uint64(s.Bytes) }},
		{"sandpiper_queue_expired_total", "counter", "messages whose time to live was over", func(s store.SinkStats) uint64 { return s.Expired }},
		{"sandpiper_queue_damaged_total", "counter", "messages that the disk did not keep", func(s store.SinkStats) uint64 { return s.Damaged }},
		{"sandpiper_queue_purged_total", "counter", "messages dropped by an operator", func(s store.SinkStats) uint64 { return s.Purged }},
	} {
		if _, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind); err != nil {
			return err
		}
		for _, s := range lanes {
			if _, err := fmt.Fprintf(w, "%s{queue=%q,priority=\"%d\"} %d\n", m.name, s.Sink, s.Priority, m.value(s)); err != nil {
				return err
			}
		}
	}
	return nil
}
