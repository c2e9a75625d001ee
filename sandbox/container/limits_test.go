package container_test

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

func TestMemoryLimitIsKeptAndTold(t *testing.T) {
	t.Parallel()
	notRaced(t)
	r := newRuntime(t)
	if !r.Probe().Memory {
		t.Skip("SKIPPED FOR LACK OF A MEMORY CONTROLLER: " + announce(r))
	}
	s := spec(t, "hog")
	s.Limits.Memory = 16 << 20
	s.Args = []string{probeIn(t, &s), "as-probe", "eat"}
	i := start(t, r, s)
	if e := i.wait(); !e.OOM || e.Signal != "SIGKILL" || e.Code != 137 || !e.Known {
		t.Errorf("got %+v, want an OOM kill", e)
	}
	if st, err := i.Stats(); err != nil || st.OOMKills == 0 || st.MemoryLimit != 16<<20 || st.MemoryPeak > 17<<20 { // the kernel charges in batches
		t.Errorf("got %+v, %v, want an OOM kill and a peak within the limit", st, err)
	}
}

func TestStartFitsTheMemoryFloor(t *testing.T) {
	t.Parallel()
	notRaced(t)
	r := newRuntime(t)
	s := spec(t, "floor")
	s.Limits.Memory = sandbox.MinMemory
	s.Args = []string{"/bin/true"}
	if e := start(t, r, s).wait(); e.Code != 0 || e.OOM {
		t.Errorf("got %+v, want code 0", e)
	}
}

func TestForkBombStaysInside(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	s := spec(t, "bomb")
	s.Limits.Pids = 20
	s.Args = []string{probeIn(t, &s), "as-probe", "fork"}
	i := start(t, r, s)
	n, err := strconv.Atoi(i.line()) // children it got
	if err != nil || n < 1 || n >= 20 {
		t.Errorf("got %d processes, %v, want some and fewer than the limit of 20", n, err)
	}
	if st, err := i.Stats(); err != nil || r.Probe().Pids && st.Pids > 20 {
		t.Errorf("got %+v, %v, want at most 20 pids", st, err)
	}
}

func TestOtherLimits(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	f := r.Probe()
	s := spec(t, "limits")
	s.Limits = sandbox.Limits{CPU: 250, Files: 77, Tmp: 1 << 20, Pids: 33}
	got := runShell(t, r, s, `exec 2>&1
		ulimit -n; ulimit -c; printf %2000000s '' > /tmp/x || stat -c %s /tmp/x
		cd /sys/fs/cgroup; cat cpu.max cpu/cpu.cfs_quota_us pids.max pids/pids.max 2>/dev/null`)
	want := "77\n0\n/bin/bash: line 2: printf: write error: No space left on device\n1048576\n"
	switch {
	case !f.CPU || !f.Pids:
		t.Log("CPU AND PIDS LIMITS NOT CHECKED: " + announce(r))
	case f.Cgroup == "v2":
		want += "25000 100000\n33\n"
	default:
		want += "25000\n33\n"
	}
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestBothLoopbackAddresses(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	s := spec(t, "six")
	s.Args = []string{"/bin/bash", "-c", "(exec 3<>/dev/tcp/::1/8883; read -r line <&3; echo $line)"}
	log := s.LogPath
	i, err := r.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Destroy() })
	for _, addr := range []string{"127.0.0.1:8883", "[::1]:8883", "127.0.0.1:443"} {
		l, err := i.Listen("tcp", addr)
		if err != nil {
			if !exists("/proc/net/if_inet6") && strings.HasPrefix(addr, "[") {
				t.Skip("SKIPPED FOR LACK OF IPV6 in this kernel")
			}
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		if addr == "[::1]:8883" {
			go func() {
				if c, err := l.Accept(); err == nil {
					_, _ = c.Write([]byte("six\n"))
					_ = c.Close()
				}
			}()
		}
	}
	out, err := sandbox.OpenLog(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "six\n" {
		t.Errorf("got %q, %v, want six", buf[:n], err)
	}
}

func TestHostNetwork(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	s := spec(t, "hostnet")
	s.Network = sandbox.Host
	here, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	go func() {
		if c, err := here.Accept(); err == nil {
			_, _ = c.Write([]byte("host\n"))
			_ = c.Close()
		}
	}()
	_, port, err := net.SplitHostPort(here.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	got := runShell(t, r, s, `exec 2>&1; exec 3<>/dev/tcp/127.0.0.1/`+port+`; cat <&3; cat /etc/resolv.conf; ls /sys/class/net/lo/mtu; : > /sys/x; ls /sys/fs/cgroup | wc -l`)
	resolv, _ := os.ReadFile("/etc/resolv.conf")
	want := "host\n" + string(resolv) + "/sys/class/net/lo/mtu\n/bin/bash: line 1: /sys/x: Read-only file system\n0\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func notRaced(t *testing.T) {
	t.Helper()
	if raced {
		t.Skip("SKIPPED UNDER THE RACE DETECTOR: it needs more memory than the limit tested")
	}
}

func TestDiskBandwidthIsLimited(t *testing.T) {
	t.Parallel()
	r := newRuntime(t)
	if !r.Probe().IO {
		t.Skip("SKIPPED FOR LACK OF A LIMIT OF DISK BANDWIDTH: " + announce(r))
	}
	took := func(limit int64, how string) time.Duration {
		s := spec(t, "disk-"+how[:1])
		s.Limits.IO = limit
		s.Mounts = []sandbox.Mount{{Source: openDir(t), Target: "/data", Writable: true, Own: true}}
		out := runShell(t, r, s, `set -e; a=${EPOCHREALTIME/./}; dd if=/dev/zero of=/data/f bs=64k count=32 `+how+` 2>/dev/null; b=${EPOCHREALTIME/./}; echo $(((b-a)/1000))`)
		n, err := strconv.Atoi(strings.TrimSpace(out))
		if err != nil {
			t.Skipf("SKIPPED FOR LACK OF A DISK THAT TAKES DIRECT WRITES below %s: %q", s.Mounts[0].Source, out)
		}
		return time.Duration(n) * time.Millisecond
	}
	const limit = 1 << 20 // two seconds for what is written
	if got := took(limit, "oflag=direct"); got < time.Second {
		t.Errorf("2 MiB at 1 MiB a second: took %s, want about two seconds", got)
	}
	if r.Probe().Cgroup != "v2" {
		return // what the kernel writes later is nobody's there, as Degraded says
	}
	if got := took(limit, "conv=fsync"); got < time.Second {
		t.Errorf("2 MiB through the page cache: took %s, want about two seconds", got)
	}
}
