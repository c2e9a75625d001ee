package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// backlog is what bench-backlog says of itself.
type backlog struct {
	Messages  int     `json:"messages"`
	FillRate  float64 `json:"fill_rate"`  // msg/s
	Disk      int64   `json:"disk"`       // bytes of all files when full
	FillRSS   int64   `json:"fill_rss"`   // anonymous bytes, the most while filling and sealing
	FullRSS   int64   `json:"full_rss"`   // anonymous bytes, at rest with everything queued
	Reopen    float64 `json:"reopen"`     // seconds from Open to the first item
	DrainRate float64 `json:"drain_rate"` // msg/s
	DrainRSS  int64   `json:"drain_rss"`  // anonymous bytes, the most while draining
	MappedRSS int64   `json:"mapped_rss"` // file-mapped bytes, the most of all
	DiskAfter int64   `json:"disk_after"` // bytes of all files 5 s after the last acknowledgement
}

const backlogBody = 200

// backlogRows: ten million messages of 200 B queued, the process ended, the store opened again and drained; as this machine's
// program and as a 32-bit one.
func backlogRows(s size) ([]row, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n := s.of(10_000_000, 20_000)
	var rows []row
	for _, variant := range []string{"", "-386"} {
		b, err := runBacklog(filepath.Join(filepath.Dir(self), "bench-backlog"+variant), n)
		suffix := map[string]string{"": "", "-386": "/386"}[variant]
		if err != nil {
			return nil, fmt.Errorf("backlog%s: %w", variant, err)
		}
		payload := float64(n) * backlogBody
		note := fmt.Sprintf("%d messages of %d B, filled at %.0f msg/s", n, backlogBody, b.FillRate)
		rows = append(rows,
			against("store.backlog/disk"+suffix, "B/B", "lower", float64(b.Disk)/payload, 1.20, note),
			against("store.backlog/anon-rss"+suffix, "B", "lower", float64(b.FullRSS), 24<<20,
				fmt.Sprintf("at rest; %.1f MiB at most while filling and sealing, %.1f while draining; file-mapped at most %.1f", mib(b.FillRSS), mib(b.DrainRSS), mib(b.MappedRSS))),
			against("store.backlog/sealing-rss"+suffix, "B", "lower", float64(b.FillRSS), 40<<20, "anonymous, the most while filling and sealing"),
			against("store.backlog/reopen"+suffix, "s", "lower", b.Reopen, 0.1, "a new process, from Open to the first item"),
			against("store.backlog/drain"+suffix, "msg/s", "higher", b.DrainRate, 300_000, "from disk, batches of 1024, acknowledged"),
			against("store.backlog/disk-after"+suffix, "B", "lower", float64(b.DiskAfter), 32<<20, "5 s after the last acknowledgement"))
	}
	return rows, nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func runBacklog(program string, n int) (b backlog, err error) {
	dir, err := os.MkdirTemp("", "sandpiper-bench-")
	if err != nil {
		return b, err
	}
	defer os.RemoveAll(dir)
	for _, phase := range []string{"fill", "drain"} {
		cmd := exec.Command(program, phase, dir, fmt.Sprint(n))
		cmd.Stderr = os.Stderr
		raw, err := cmd.Output()
		if err != nil {
			return b, fmt.Errorf("%s: %w", phase, err)
		}
		fmt.Fprintf(os.Stderr, "%s %s: %s", filepath.Base(program), phase, raw)
		if err := json.Unmarshal(raw, &b); err != nil {
			return b, err
		}
	}
	return b, nil
}
