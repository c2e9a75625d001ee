package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// moduleSocket is where a module finds the agent.
const moduleSocket = "/run/sandpiper/module.sock"

// hostile is what the test binary does inside a sandbox when a module's script asks for it. "ESCAPED" in its output fails the test.
func hostile(act string) int {
	acts := map[string]func(){
		"steady": steady, "memory": hogMemory, "files": hogFiles, "flood": floodLog, "disk": fillDisk, "links": playWithLinks, "crowd": crowdDoors, "body": sendBodies,
	}
	acts[act]()
	return 0
}

// rest waits to be ended.
func rest() { <-context.Background().Done() }

func socketClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", moduleSocket)
	}}}
}

// steady is the good module beside them: it sends at a pace and counts what was acknowledged.
func steady() {
	client := socketClient()
	tick := time.NewTicker(time.Second / steadyRate)
	for sent := 0; ; {
		<-tick.C
		res, err := client.Post("http://agent/v1/messages/outputs/out", "application/json", strings.NewReader(`{"n":1}`))
		if err != nil {
			fmt.Println(err)
			continue
		}
		res.Body.Close()
		if res.StatusCode/100 != 2 {
			fmt.Println(res.Status)
			continue
		}
		if sent++; sent%(steadyRate/5) == 0 {
			fmt.Println("sent", sent)
		}
	}
}

func hogMemory() {
	var all [][]byte
	for {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		if all = append(all, block); len(all) > 1024 {
			fmt.Println("ESCAPED: it got a gigabyte")
			rest()
		}
	}
}

func hogFiles() {
	for n := 0; ; n++ {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			fmt.Println("after", n, "files:", err)
			break
		}
		if n > 1<<16 {
			fmt.Println("ESCAPED: it got", n, "files")
			break
		}
	}
	rest()
}

// floodLog prints 100 MB a second, or as much as is taken.
func floodLog() {
	block := bytes.Repeat([]byte(strings.Repeat("flood ", 16)+"\n"), 10000)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		if _, err := os.Stdout.Write(block); err != nil {
			return
		}
	}
}

func fillDisk() {
	const enough = 48 << 20
	for _, dir := range []string{"/tmp", "/dev/shm", "/run", "/data"} {
		f, err := os.Create(filepath.Join(dir, "full"))
		if err != nil {
			fmt.Println(dir, err)
			continue
		}
		block := make([]byte, 1<<20)
		for size := 0; err == nil; size += len(block) {
			if _, err = f.Write(block); err == nil && size > enough {
				fmt.Println(dir, "takes more than", enough)
				err = io.EOF
			}
		}
		fmt.Println(dir, err)
		f.Close()
		if dir != "/data" { // that one stays full
			os.Remove(f.Name())
		}
	}
	rest()
}

// playWithLinks puts into its data directory what a careless agent would follow, and tries to mount.
func playWithLinks() {
	secret := "/data/secret"
	for _, target := range []string{"/etc/shadow", "/proc/1/root/etc/shadow", "/proc/self/root/../../etc/shadow", "../../../../etc/shadow", "/run/sandpiper/../control.sock"} {
		os.Remove(secret)
		if err := os.Symlink(target, secret); err != nil {
			fmt.Println(err)
			continue
		}
		if raw, err := os.ReadFile(secret); err == nil {
			fmt.Println("ESCAPED: it read", target, len(raw))
		}
	}
	for _, try := range []struct{ source, target, kind string }{
		{"tmpfs", "/data", "tmpfs"}, {"proc", "/data", "proc"}, {"/", "/data", ""}, {"/run", "/data", ""}, {"overlay", "/data", "overlay"},
	} {
		var flags uintptr
		if try.kind == "" {
			flags = unix.MS_BIND
		}
		if err := unix.Mount(try.source, try.target, try.kind, flags, ""); err == nil {
			fmt.Println("ESCAPED: it mounted", try)
		}
	}
	if err := unix.Mknod("/data/disk", unix.S_IFBLK|0o666, int(unix.Mkdev(8, 0))); err == nil {
		fmt.Println("ESCAPED: it made a device")
	}
	if err := unix.Unshare(unix.CLONE_NEWUSER | unix.CLONE_NEWNS); err == nil {
		fmt.Println("ESCAPED: it has a namespace of its own")
	}
	for n := range 1000 { // and something to walk into for whoever removes it
		if os.Mkdir(fmt.Sprintf("/data/d%d", n), 0o700) == nil {
			_ = os.Symlink("..", fmt.Sprintf("/data/d%d/up", n))
		}
	}
	rest()
}

// crowdDoors opens ten thousand connections, as far as its own limits go, over and over.
func crowdDoors() {
	var held []net.Conn
	for round := 0; ; round++ {
		for n := range 10_000 {
			network, addr := "tcp", "127.0.0.1:8883"
			switch n % 3 {
			case 1:
				addr = "127.0.0.1:443"
			case 2:
				network, addr = "unix", moduleSocket
			}
			dialer := net.Dialer{Timeout: 100 * time.Millisecond}
			conn, err := dialer.Dial(network, addr)
			if err != nil {
				if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.EAGAIN) {
					break
				}
				continue
			}
			held = append(held, conn)
		}
		fmt.Println("round", round, "holds", len(held))
		<-time.After(time.Second)
		for _, conn := range held {
			conn.Close()
		}
		held = held[:0]
	}
}

// sendBodies sends a gigabyte at a time: announced, not announced, and as MQTT.
func sendBodies() {
	const giga = 1 << 30
	for {
		for _, announced := range []int64{giga, -1} {
			req, err := http.NewRequest(http.MethodPost, "http://agent/v1/messages/outputs/out", io.LimitReader(zeros{}, giga))
			if err != nil {
				fmt.Println(err)
				return
			}
			req.ContentLength = announced
			if res, err := socketClient().Do(req); err == nil {
				if res.Body.Close(); res.StatusCode/100 == 2 {
					fmt.Println("ESCAPED: a gigabyte was taken")
				}
			}
		}
		conn, err := tls.Dial("tcp", "127.0.0.1:8883", &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is not here to be safe
		if err == nil {
			_, _ = conn.Write([]byte{0x10, 0xff, 0xff, 0xff, 0x7f}) // a CONNECT of 256 MiB
			_, _ = io.Copy(conn, io.LimitReader(zeros{}, giga))
			conn.Close()
		}
		<-time.After(50 * time.Millisecond)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
