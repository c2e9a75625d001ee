// Command beat is the module of the main job on boards: a static binary that publishes without pause and prints the id of each message
// once it was acknowledged.
//
// An id is MODULE.SESSION.N. A session is one lane of one run of the program; it sends N+1 only after N was acknowledged, so whoever
// holds N of a session knows that everything below it was acknowledged too, whether or not he saw the line that says so.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	socket = "/run/sandpiper/module.sock"
	lanes  = 3 // sessions at a time: several messages are on their way when the power goes
)

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: lanes + 1, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", socket)
}}}

func main() {
	name := os.Getenv("IOTEDGE_MODULEID")
	period := 100 * time.Millisecond
	if ms, err := strconv.Atoi(os.Getenv("BEAT_MS")); err == nil && ms > 0 {
		period = time.Duration(ms) * time.Millisecond
	}
	fmt.Println("up", name)
	var stop atomic.Bool
	go follow(&stop)
	var all sync.WaitGroup
	for range lanes {
		all.Go(func() { beat(name, period, &stop) })
	}
	all.Wait()
	fmt.Println("stopped", name)
	select {}
}

// beat is one session.
func beat(name string, period time.Duration, stop *atomic.Bool) {
	word := make([]byte, 5)
	rand.Read(word)
	session := name + "." + hex.EncodeToString(word)
	for n := 1; !stop.Load(); n++ {
		id := session + "." + strconv.Itoa(n)
		for {
			err := send(id)
			if err == nil {
				break
			}
			fmt.Println("again", id, err)
			wait(300 * time.Millisecond)
		}
		fmt.Println("acked", id)
		wait(period)
	}
}

func send(id string) error {
	where := "http://module/v1/messages/outputs/telemetry?" + url.Values{"$.mid": {id}}.Encode()
	res, err := client.Post(where, "application/json", bytes.NewReader([]byte(`{"beat":"`+id+`"}`)))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<16)); err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("status %s", res.Status)
	}
	return nil
}

// follow sets stop when the twin's desired properties ask for it.
func follow(stop *atomic.Bool) {
	type orders struct {
		Stop bool `json:"stop"`
	}
	obey := func(o orders) { stop.Store(stop.Load() || o.Stop) }
	for {
		if res, err := client.Get("http://module/v1/twin"); err == nil {
			var twin struct{ Desired orders }
			if json.NewDecoder(res.Body).Decode(&twin) == nil {
				obey(twin.Desired)
			}
			res.Body.Close()
		}
		if res, err := client.Get("http://module/v1/twin/desired"); err == nil {
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

func wait(d time.Duration) { <-time.After(d) }
