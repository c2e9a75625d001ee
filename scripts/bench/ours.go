package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandpiper-edge/sandpiper/agent/broker"
	"github.com/sandpiper-edge/sandpiper/agent/identity"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
	"github.com/sandpiper-edge/sandpiper/store"
)

const (
	benchHub     = "bench.example.net"
	benchDevice  = "edge1"
	benchModules = 10
)

// login is what one module connects with.
type login struct{ ID, User, Password string }

// serve is the device's broker as the agent builds it: real store, real identities and tokens, real TLS, one route to the hub.
// It runs as a process of its own, as the peer does.
func serve(args []string) error {
	dir, addr := args[0], args[1]
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	st, err := store.Open(store.Config{Dir: filepath.Join(dir, "store"), MaxBytes: 4 << 30})
	if err != nil {
		return err
	}
	defer st.Close()
	twins, err := twin.NewKeeper(st.Docs())
	if err != nil {
		return err
	}
	who, err := identity.New(ctx, identity.Config{Hub: benchHub, Device: benchDevice, Docs: st.Docs()})
	if err != nil {
		return err
	}
	up, err := route.Parse("FROM /messages/* INTO $upstream")
	if err != nil {
		return err
	}
	router := route.NewRouter([]route.Rule{{Name: "up", Route: up, Priority: route.Lowest}})
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return err
	}
	b, err := broker.New(broker.Config{
		Device: benchDevice, Authenticate: who.Authenticate, AuthorizeHTTP: who.AuthorizeHTTP,
		Router: func() *route.Router { return router }, Queue: st.Queue(), Docs: st.Docs(), Twins: twins,
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		return err
	}
	logins := make([]login, benchModules)
	for i := range logins {
		m, err := who.Ensure(ctx, "m"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		token, err := iothub.MintToken(m.ID.Resource(benchHub), "", time.Now().Add(time.Hour), m.Key.Signer())
		if err != nil {
			return err
		}
		user := iothub.UserName{Hub: benchHub, ID: m.ID, APIVersion: "2021-04-12"}
		logins[i] = login{ID: m.ID.String(), User: user.String(), Password: token.Reveal()}
	}
	raw, err := json.Marshal(logins)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "logins.json"), raw, 0o600); err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return st.Run(ctx) })
	g.Go(func() error { return b.Run(ctx) })
	g.Go(func() error { return b.Serve(ctx, l, nil, mqtt.Origin{Label: "bench"}) })
	return g.Wait()
}

// ours starts serve as a process.
func ours(dir string, _ pair) (server, error) {
	self, err := os.Executable()
	if err != nil {
		return server{}, err
	}
	addr, _, err := freePort()
	if err != nil {
		return server{}, err
	}
	stop, err := start(exec.Command(self, "serve", dir, addr), addr)
	if err != nil {
		return server{}, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "logins.json"))
	if err != nil {
		stop()
		return server{}, err
	}
	var logins []login
	if err := json.Unmarshal(raw, &logins); err != nil {
		stop()
		return server{}, err
	}
	return server{addr: addr, stop: stop, login: func(i int) (string, string, string) { return logins[i].ID, logins[i].User, logins[i].Password }}, nil
}

func freePort() (addr, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	return l.Addr().String(), port, err
}

// start runs a server and returns when it accepts connections. The returned func ends it.
func start(cmd *exec.Cmd, addr string) (stop func(), err error) {
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	for range 200 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return stop, c.Close()
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("%s ended: %w", cmd.Path, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	stop()
	return nil, fmt.Errorf("%s does not accept connections on %s", cmd.Path, addr)
}
