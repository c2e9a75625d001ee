package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/workload"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// The ports are literals inside the device SDKs and cannot be chosen.
const (
	mqttPort  = "8883"
	httpsPort = "443"
)

// doors are the ways in which modules reach the agent: for each instance its unix socket, and TCP listeners inside its own
// network namespace. Which door a connection came through says who is speaking.
type doors struct {
	runDir string
	ca     []byte // PEM, what a module must trust
	mqtt   func(ctx context.Context, mqtt, https net.Listener, origin mqtt.Origin) error
	socket func(ctx context.Context, l net.Listener, caller workload.Caller) error
	names  func(ctx context.Context, i sandbox.Instance) (func() error, error) // opens what answers questions for names
	logger *slog.Logger

	mu   sync.Mutex // guards open
	open map[string]*door
}

// door is what is open for one instance.
type door struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// moduleDir is bound into the module's sandbox at /run/sandpiper.
func (d *doors) moduleDir(module string) string { return filepath.Join(d.runDir, "modules", module) }

// prepareDir makes what a module finds at /run/sandpiper: the certificates it must trust, and a place to bind this binary to.
// The directory is root's: a module can read it and write nothing there.
func (d *doors) prepareDir(module string) (string, error) {
	dir := d.moduleDir(module)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, caName), d.ca, 0o644); err != nil {
		return "", err
	}
	return dir, nil
}

// What stands in a module's /run/sandpiper.
const (
	insideDir  = "/run/sandpiper"
	socketName = "module.sock"
	caName     = "ca.pem"
)

// maxSocketPath is how long the path of a unix socket may be (unix(7): 108 bytes with the one that ends it).
const maxSocketPath = 107

// listeners are what is open for one instance before anything is served there.
type listeners struct {
	socket net.Listener
	pairs  []pair
}

func (l listeners) close() {
	l.socket.Close()
	for _, p := range l.pairs {
		p.mqtt.Close()
		p.https.Close()
	}
}

// listen opens all of them or none.
func (d *doors) listen(module string, inst sandbox.Instance, addr string) (l listeners, err error) {
	dir, err := d.prepareDir(module)
	if err != nil {
		return l, err
	}
	path := filepath.Join(dir, socketName)
	if len(path) > maxSocketPath {
		return l, fmt.Errorf("module socket %s: a path of %d bytes, and a socket's has %d at most; choose a shorter run_dir", path, len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return l, err
	}
	if l.socket, err = net.Listen("unix", path); err != nil {
		return l, fmt.Errorf("module socket: %w", err)
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := os.Chmod(path, 0o666); err != nil { // the caller's uid is checked, see workload
		return l, err
	}
	first, err := listenPair(inst, addr)
	if err != nil {
		return l, fmt.Errorf("listen in the sandbox of %s: %w", module, err)
	}
	l.pairs = append(l.pairs, first)
	if addr != loopback {
		return l, nil
	}
	second, err := listenPair(inst, "::1")
	if err != nil { // a kernel without IPv6: the names in /etc/hosts point at 127.0.0.1 anyway
		d.logger.Debug("no IPv6 loopback in the sandbox", "module", module, "err", err)
		return l, nil
	}
	l.pairs = append(l.pairs, second)
	return l, nil
}

// serve opens the doors of one instance, closing those of an earlier one of the same module, and returns when all are open.
// They stay open until shut or until ctx ends. An agent that restarts opens them again at the same places. resolves: names are answered, too.
func (d *doors) serve(ctx context.Context, module iothub.ID, inst sandbox.Instance, addr string, idBase uint32, resolves bool) error {
	d.shut(module.Module)
	opened, err := d.listen(module.Module, inst, addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var answer func() error
	if resolves {
		if answer, err = d.names(ctx, inst); err != nil {
			cancel()
			opened.close()
			return fmt.Errorf("resolve names for %s: %w", module.Module, err)
		}
	}
	this := &door{cancel: cancel, done: make(chan struct{})}
	var all sync.WaitGroup
	run := func(what string, serve func() error) {
		all.Go(func() {
			if err := serve(); err != nil && ctx.Err() == nil {
				d.logger.Error("door closed", "module", module.Module, "door", what, "err", err)
			}
		})
	}
	run(socketName, func() error {
		return d.socket(ctx, opened.socket, workload.Caller{ID: module, UIDBase: idBase, UIDCount: sandbox.IDCount})
	})
	for _, p := range opened.pairs {
		run(p.mqtt.Addr().String(), func() error {
			return d.mqtt(ctx, p.mqtt, p.https, mqtt.Origin{ID: module, Label: "sandbox " + module.Module})
		})
	}
	if answer != nil {
		run("names", answer)
	}
	go func() { all.Wait(); close(this.done) }()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[string]*door{}
	}
	d.open[module.Module] = this
	return nil
}

// pair is the two listeners at one address.
type pair struct{ mqtt, https net.Listener }

// listenPair opens both or none.
func listenPair(inst sandbox.Instance, host string) (p pair, err error) {
	if p.mqtt, err = inst.Listen("tcp", net.JoinHostPort(host, mqttPort)); err != nil {
		return pair{}, err
	}
	if p.https, err = inst.Listen("tcp", net.JoinHostPort(host, httpsPort)); err != nil {
		p.mqtt.Close()
		return pair{}, err
	}
	return p, nil
}

// loopback is where a module with a network namespace of its own finds the agent.
const loopback = "127.0.0.1"

// shut closes the doors of a module and returns when nothing is served there any more.
func (d *doors) shut(module string) {
	d.mu.Lock()
	this := d.open[module]
	delete(d.open, module)
	d.mu.Unlock()
	if this != nil {
		this.cancel()
		<-this.done
	}
}

// wait returns when every door has closed, which they do when the context they were opened with has ended.
func (d *doors) wait() {
	d.mu.Lock()
	open := make([]*door, 0, len(d.open))
	for _, this := range d.open {
		open = append(open, this)
	}
	d.mu.Unlock()
	for _, this := range open {
		<-this.done
	}
}
