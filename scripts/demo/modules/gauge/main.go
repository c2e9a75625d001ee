// Command gauge is the demo's Go module: a static binary in a signed bundle with a root of its own, nothing else in it. It
// speaks the module API over its socket with the standard library alone.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const socket = "/run/sandpiper/module.sock"

var client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", socket)
}}}

// orders is what the twin's desired properties ask of the module.
type orders struct {
	PeriodMS int    `json:"periodMs"`
	Phase    string `json:"phase"`
	Stop     bool   `json:"stop"`
}

func main() {
	// It is the first process of its sandbox, and the kernel hands such a one no signal that it has not asked for.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() { <-ended; os.Exit(0) }() // what is not acknowledged is sent again by the next instance
	name := os.Getenv("IOTEDGE_MODULEID")
	var mu sync.Mutex
	now := orders{PeriodMS: 50, Phase: "one"}
	go follow(func(o orders) {
		mu.Lock()
		defer mu.Unlock()
		if o.PeriodMS > 0 {
			now.PeriodMS = o.PeriodMS
		}
		if o.Phase != "" {
			now.Phase = o.Phase
		}
		now.Stop = now.Stop || o.Stop
	})
	fmt.Println(name, "is up")
	sent := 0
	for {
		mu.Lock()
		o := now
		mu.Unlock()
		if o.Stop {
			break
		}
		body := fmt.Sprintf(`{"module":%q,"n":%d,"phase":%q}`, name, sent+1, o.Phase)
		again(func() error { return send(fmt.Sprintf("%s-%d", name, sent+1), o.Phase, body) })
		sent++
		wait(time.Duration(o.PeriodMS) * time.Millisecond)
	}
	again(func() error {
		return ask(http.MethodPatch, "/v1/twin", "application/json", fmt.Sprintf(`{"sent":%d,"phase":%q}`, sent, now.Phase), nil)
	})
	fmt.Println(name, "stopped after", sent, "messages")
	select {}
}

// follow calls obey with the desired properties now and after every change, for ever.
func follow(obey func(orders)) {
	for {
		var twin struct{ Desired orders }
		if err := ask(http.MethodGet, "/v1/twin", "", "", &twin); err == nil {
			obey(twin.Desired)
		}
		res, err := client.Get("http://module/v1/twin/desired")
		if err == nil {
			lines := json.NewDecoder(res.Body)
			for {
				var o orders
				if lines.Decode(&o) != nil {
					break
				}
				obey(o)
			}
			res.Body.Close()
		}
		wait(300 * time.Millisecond)
	}
}

func send(id, phase, body string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://module/v1/messages/outputs/telemetry?"+url.Values{"$.mid": {id}, "phase": {phase}}.Encode(), bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return do(req, nil)
}

func ask(method, path, contentType, body string, into any) error {
	req, err := http.NewRequestWithContext(context.Background(), method, "http://module"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return do(req, into)
}

func do(req *http.Request, into any) error {
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", req.Method, req.URL.Path, res.Status)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}

// again repeats act until it succeeds: the agent may be restarting.
func again(act func() error) {
	for {
		err := act()
		if err == nil {
			return
		}
		fmt.Println(err)
		wait(300 * time.Millisecond)
	}
}

func wait(d time.Duration) { <-time.After(d) }
