package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/network"
)

// apart has the agent of a test on a host of its own, as far as the network goes.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET} }

func TestModulesOnTheBridgeReachWhomTheyMay(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		if lacks := network.Missing(); len(lacks) > 0 {
			t.Skip("BRIDGE TESTS DO NOT RUN: " + strings.Join(lacks, "; "))
		}
	}
	d := startDeviceAs(t, apart, "[network]\npublish = [\"80\"]\n")
	serve := `exec "$SANDPIPER" listen 8080`
	images := map[string]string{"server": d.bundle("server", serve), "friend": d.bundle("friend", "while :; do sleep 0.1; done"), "stranger": d.bundle("stranger", "while :; do sleep 0.1; done")}
	want := manifest(map[string]string{}, images)
	for module, settings := range map[string]map[string]any{"server": {"ports": []string{"80:8080"}}, "friend": {"reach": []string{"server"}}, "stranger": {}} {
		settings["network"] = "bridge"
		want = withSettings(t, want, module, "always", settings)
	}
	if _, err := d.client().Apply(t.Context(), []byte(strings.Replace(want, `"80:8080"`, `"81:8080"`, 1))); err == nil || !strings.Contains(err.Error(), "port 81 of the host is not for modules") {
		t.Errorf("a port that the device's owner does not give: got %v", err)
	}
	if _, err := d.client().Apply(t.Context(), []byte(want)); err != nil {
		t.Fatal(err)
	}
	d.untilRunning("server", "friend", "stranger")
	reach := func(module, addr string) string {
		_, stderr, code := d.run("", "module", "exec", module, "sh", "-c", `"$SANDPIPER" dial `+addr)
		return fmt.Sprint(code, " ", stderr)
	}
	d.until("a friend reaches the server by its name", func() (bool, string) { got := reach("friend", "server:8080"); return got == "0 ", got })
	st, err := d.client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hosts, _, _ := d.run("", "module", "exec", "friend", "cat", "/etc/hosts")
	addr := ""
	for line := range strings.Lines(hosts) {
		if f := strings.Fields(line); len(f) == 2 && f[1] == "server" {
			addr = f[0]
		}
	}
	if got := reach("stranger", addr+":8080"); addr == "" || got == "0 " {
		t.Errorf("a stranger reaches %q: got %s", addr, got)
	}
	if got := reach("stranger", "172.29.77.1:22"); got == "0 " {
		t.Error("a module reaches the host")
	}
	if err := d.dialHost(st.Pid, "127.0.0.1:80"); err != nil {
		t.Errorf("the published port: %v", err)
	}
	if got, stderr, _ := d.run("", "module", "exec", "stranger", "cat", "/etc/resolv.conf"); got != "nameserver 127.0.0.1\n" {
		t.Errorf("whom it asks for names: got %q, %s", got, stderr)
	}
	before := d.births()
	if err := syscall.Kill(st.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.until("the next agent", func() (bool, string) {
		now, err := d.client().Status(t.Context())
		return err == nil && now.Pid != st.Pid && d.births() == before && reach("friend", "server:8080") == "0 ", fmt.Sprint(err)
	})
	if _, stderr, code := d.run("", "module", "stop", "server"); code != 0 {
		t.Fatal(stderr)
	}
	d.until("the port of a module that stopped is gone", func() (bool, string) {
		return d.dialHost(d.agentPid(0), "127.0.0.1:80") != nil, ""
	})
}

// dialHost connects from where the agent is.
func (d *device) dialHost(agent int, addr string) error {
	done := make(chan error, 1)
	go func() { done <- dialAt(d.t.Context(), agent, addr) }()
	return <-done
}

// listenAndDial are what the test binary does inside a sandbox when told to.
func listenAndDial(verb, addr string) int {
	if verb == "dial" {
		c, err := (&net.Dialer{Timeout: time.Second}).Dial("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		_ = c.Close()
		return 0
	}
	port, err := strconv.Atoi(addr)
	l, err2 := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
	if err := errors.Join(err, err2); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return 1
		}
		_ = c.Close()
	}
}

// dialAt connects in the network namespace of a process, on a thread that is thrown away.
func dialAt(ctx context.Context, pid int, addr string) error {
	runtime.LockOSThread() // never unlocked
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := bringUpLoopback(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// bringUpLoopback of the namespace of this thread: a new one has it down.
func bringUpLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
