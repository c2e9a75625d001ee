package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/workload"
)

// halDoor is where pins are asked for: the agent's socket as an operator, or inside a module its own, with what it was granted. Both
// speak the same language.
type halDoor struct {
	path string
	http http.Client
}

// hal finds the socket: inside a sandbox there is no other than the module's.
func (s *shared) hal() *halDoor {
	path := filepath.Join(s.runDir, "control.sock")
	if _, err := os.Stat(path); err != nil {
		if _, err := os.Stat(workload.SocketPath); err == nil {
			path = workload.SocketPath
		}
	}
	d := &halDoor{path: path}
	d.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	return d
}

// ask sends in, unless it is nil, and reads the answer into out, unless that is nil.
func (d *halDoor) ask(ctx context.Context, method, path string, in, out any) error {
	body, err := d.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("answer of the agent: %w", err)
	}
	return nil
}

func (d *halDoor) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var raw []byte
	if in != nil {
		var err error
		if raw, err = json.Marshal(in); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := d.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, control.Explain(d.path, err)
	}
	if res.StatusCode < 300 {
		return res.Body, nil
	}
	defer res.Body.Close()
	var fault struct {
		Error struct{ Code, Name, Detail string } `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&fault); err != nil || fault.Error.Code == "" {
		if d.path == workload.SocketPath && strings.HasPrefix(path, "/hal/") {
			return nil, errors.New("only the operator of the device has this; a module has list, read, write and watch")
		}
		return nil, errors.New("the agent has no [hal] section in its configuration: there are no pins to ask for")
	}
	parts := slices.DeleteFunc([]string{fault.Error.Name, fault.Error.Code, fault.Error.Detail}, func(s string) bool { return s == "" })
	return nil, errors.New(strings.Join(parts, ": "))
}
