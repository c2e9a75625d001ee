package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

func (s *stage) hubDir() string { return filepath.Join(s.work, "hub") }

func (s *stage) hubTool(ctx context.Context, args ...string) ([]byte, error) {
	return s.tool(ctx, "sandpiper-hub", append([]string{"--dir", s.hubDir()}, args...)...)
}

// startHub starts the hub on loopback ports of its own, creates the device, and puts the link that can be cut in front of MQTT.
func (s *stage) startHub(ctx context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	s.hubMQTT, s.hubHTTPS = ports[0], ports[1]
	if s.hub, err = s.spawn("sandpiper-hub", "--dir", s.hubDir(), "serve", "--host", hubHost, "--mqtt", s.hubMQTT, "--https", s.hubHTTPS, "--bundles", filepath.Join(s.work, "bundles")); err != nil {
		return err
	}
	var connection []byte
	if err := until(ctx, 20*time.Second, "the hub answers", func() (bool, error) {
		connection, err = s.hubTool(ctx, "device", "create", device)
		return err == nil, err
	}); err != nil {
		return err
	}
	if s.link, err = newLink(s.hubMQTT); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.work, "connection-string"), connection, 0o600); err != nil {
		return err
	}
	return s.followEvents()
}

func freePorts(n int) ([]string, error) {
	var list []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		list = append(list, l.Addr().String())
	}
	return list, nil
}

// event is what the demo reads of the hub's event log.
type event struct {
	Module     string            `json:"moduleId"`
	System     map[string]string `json:"systemProperties"`
	Properties map[string]string `json:"properties"`
}

func (l *ledger) take(line []byte) {
	var e event
	if json.Unmarshal(line, &e) == nil {
		l.add(e.Module, e.System["$.mid"], e.Properties["phase"])
	}
}

// followEvents counts the hub's events as they are stored.
func (s *stage) followEvents() error {
	s.events = newLedger()
	cmd := exec.Command(filepath.Join(s.bin, "sandpiper-hub"), "--dir", s.hubDir(), "events", "--follow", "--json")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.follow = cmd
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			s.events.take(lines.Bytes())
		}
	}()
	return nil
}

// readEvents reads the hub's event log from its beginning.
func (s *stage) readEvents(ctx context.Context) (*ledger, error) {
	raw, err := s.hubTool(ctx, "events", "--json", "--device", device)
	if err != nil {
		return nil, err
	}
	book := newLedger()
	for line := range bytes.Lines(raw) {
		book.take(line)
	}
	return book, nil
}
