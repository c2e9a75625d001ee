package workload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/hal"
)

// pinDoor serves a board to a module over a socket of its own, as the agent does.
func pinDoor(t *testing.T, s *Server, module string) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "wl") //nolint:usetesting // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "m.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- s.Serve(ctx, l, Caller{ID: iothub.ID{Device: filter.Device, Module: module}, UIDBase: uint32(os.Getuid()), UIDCount: 1})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return path
}

func TestAThousandIdleStreamsOfOneModuleTakeItsOwnPlacesOnly(t *testing.T) {
	t.Parallel()
	k, _ := pinBoard(t)
	crowded := make(chan string, 1)
	k.cfg.Crowded = func(id iothub.ID) {
		select {
		case crowded <- id.Module:
		default:
		}
	}
	if err := k.cfg.Hal.Grant("beside", []hal.Grant{{Name: "door", Read: true}}); err != nil {
		t.Fatal(err)
	}
	idle, beside := pinDoor(t, k.Server, filter.Module), Dial(pinDoor(t, k.Server, "beside"))
	defer beside.Close()
	streams := make([]net.Conn, 1000)
	for i := range streams {
		conn, err := net.Dial("unix", idle)
		if errors.Is(err, unix.EMFILE) {
			t.Skip("SKIPPED FOR LACK OF OPEN FILES: a thousand streams take more than this user may have (ulimit -n)")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET /v1/hal/door/events HTTP/1.1\r\nHost: agent\r\n\r\n")
		streams[i] = conn
	}
	if who := <-crowded; who != filter.Module {
		t.Errorf("the crowd is said to be %s, want %s", who, filter.Module)
	}
	for range 100 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://module/v1/hal/door", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := beside.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("the module beside got %s", res.Status)
		}
	}
	served := 0
	var all sync.WaitGroup
	var mu sync.Mutex
	late := time.Now().Add(2 * time.Second)
	for _, conn := range streams {
		all.Go(func() {
			_ = conn.SetReadDeadline(late)
			if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
				mu.Lock()
				served++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if served == 0 || served > maxConns {
		t.Errorf("%d streams are served at once, want 1 to %d", served, maxConns)
	}
}
