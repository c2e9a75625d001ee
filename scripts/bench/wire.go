package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// wire measures the publish path: 256 B, QoS 1, TLS on both sides.
func wire(s size) ([]row, error) {
	missing := ""
	if _, err := mosquittoPath(); err != nil {
		missing = err.Error()
	}
	var list []contest
	for _, c := range []struct {
		name                      string
		clients, window, messages int
	}{
		{"broker.publish/1x64", 1, 64, s.of(100_000, 1000)},
		{"broker.publish/10x16", 10, 16, s.of(150_000, 1000)},
	} {
		list = append(list, contest{
			name: c.name, unit: "acks/s", better: "higher",
			ours: func() (float64, error) { return round(ours, c.clients, c.window, c.messages) },
			peers: []peer{{
				name: "mosquitto", missing: missing,
				note: "256 B, QoS 1, TLS; ours acknowledges after fdatasync, the peer before (its acks are not durable)",
				run:  func() (float64, error) { return round(mosquitto, c.clients, c.window, c.messages) },
			}},
		})
	}
	return measureAll(list, s.rounds)
}

// server is a broker under test: started for one round in a folder of its own.
type server struct {
	addr  string
	login func(client int) (id, user, password string)
	stop  func()
}

func round(start func(dir string, p pair) (server, error), clients, window, messages int) (float64, error) {
	dir, err := os.MkdirTemp("", "sandpiper-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	p, err := newPair(dir)
	if err != nil {
		return 0, err
	}
	b, err := start(dir, p)
	if err != nil {
		return 0, err
	}
	defer b.stop()
	return load{
		addr: b.addr, tls: p.client, clients: clients, window: window, messages: messages, size: 256, login: b.login,
		topic: func(i int) string { return fmt.Sprintf("devices/edge1/modules/m%d/messages/events/", i) },
	}.run()
}

func mosquittoPath() (string, error) {
	for _, path := range []string{"/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return exec.LookPath("mosquitto")
}

// mosquitto starts the peer with persistence, with the same certificate or, without one, in the clear.
func mosquitto(dir string, p pair) (server, error) {
	path, err := mosquittoPath()
	if err != nil {
		return server{}, err
	}
	addr, port, err := freePort()
	if err != nil {
		return server{}, err
	}
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\n"+
		"max_inflight_messages 0\nmax_queued_messages 0\nlog_type error\nset_tcp_nodelay true\nuser root\n", port, dir)
	if p.client != nil {
		conf += fmt.Sprintf("certfile %s\nkeyfile %s\n", p.certFile, p.keyFile)
	}
	file := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return server{}, err
	}
	stop, err := start(exec.Command(path, "-c", file), addr)
	return server{addr: addr, stop: stop, login: func(i int) (string, string, string) { return fmt.Sprintf("edge1/m%d", i), "", "" }}, err
}
