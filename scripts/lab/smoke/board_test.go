package smoke

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onBoard skips outside the lab.
func onBoard(t *testing.T) {
	t.Helper()
	if os.Getenv("LAB") == "" {
		t.Skip("SKIPPED: not in the lab: make lab")
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func put(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestMain is also the child that eats memory.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "eat" {
		var kept [][]byte
		for range 200 {
			kept = append(kept, bytes.Repeat([]byte{1}, 1<<20))
		}
		os.Exit(len(kept) % 7)
	}
	os.Exit(m.Run())
}

func TestOnlyCgroupV2WithTheControllersThatLimitsNeed(t *testing.T) {
	t.Parallel()
	onBoard(t)
	t.Log(runtime.GOARCH, content(t, "/proc/version"))
	have := strings.Fields(content(t, "/sys/fs/cgroup/cgroup.controllers"))
	for _, want := range []string{"cpu", "io", "memory", "pids"} {
		if !strings.Contains(" "+strings.Join(have, " ")+" ", " "+want+" ") {
			t.Errorf("got controllers %v, want %s among them", have, want)
		}
	}
	for _, line := range strings.Split(content(t, "/proc/mounts"), "\n") {
		if f := strings.Fields(line); f[2] == "cgroup" {
			t.Errorf("cgroup v1 is mounted at %s", f[1])
		}
	}
}

func TestMemoryLimitKillsInsideAUserNamespace(t *testing.T) {
	t.Parallel()
	onBoard(t)
	group := "/sys/fs/cgroup/smoke"
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(group)
	put(t, group+"/memory.max", "33554432")
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 100}}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "eat")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()),
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids}
	err = cmd.Run()
	if events := content(t, group+"/memory.events"); err == nil || !strings.Contains(events, "oom_kill 1") {
		t.Fatalf("child ended with %v, events %q, want a kill", err, events)
	}
}

func TestKernelModulesThatTheProductUses(t *testing.T) {
	t.Parallel()
	onBoard(t)
	for _, module := range []string{"dm_verity", "erofs", "squashfs", "overlay", "loop", "softdog", "vcan", "w1_gpio", "tpm_vtpm_proxy", "veth", "bridge", "nft_masq",
		"dm_flakey", "gpio_sim", "i2c_stub chip_addr=0x50", "lab_i2c chip=0x48 width=2", "lab_spi", "lab_pwm", "lab_w1", "iio_dummy", "uinput"} {
		name, _, _ := strings.Cut(module, " ")
		t.Run(name, func(t *testing.T) {
			if out, err := exec.CommandContext(t.Context(), "modprobe", strings.Fields(module)...).CombinedOutput(); err != nil {
				t.Skipf("SKIPPED: no module %s on this board: %s", name, bytes.TrimSpace(out))
			}
			unload(t, name)
		})
	}
}

// unload takes a fixture out again at the end of the test: whoever comes next in the same boot loads it with other chips.
func unload(t *testing.T, module string) {
	t.Helper()
	if !strings.HasPrefix(module, "lab_") && module != "i2c_stub" {
		return
	}
	t.Cleanup(func() {
		if out, err := exec.Command("rmmod", module).CombinedOutput(); err != nil {
			t.Errorf("rmmod %s: %v: %s", module, err, bytes.TrimSpace(out))
		}
	})
}

// nodes waits until the kernel has made a node of the pattern.
func nodes(t *testing.T, pattern string) []string {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-tick.C {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found
		}
	}
	t.Fatalf("no %s within 10 s", pattern)
	return nil
}

func TestFixturesMakeTheirDevices(t *testing.T) {
	onBoard(t)
	const i2c = "lab_i2c chip=0x48 width=2"
	for name, modules := range map[string][]string{
		"/dev/i2c-*": {i2c, "i2c_dev"}, "/sys/class/hwmon/*": {i2c, "i2c_dev", "lm75"}, "/dev/spidev*": {"lab_spi"}, "/dev/watchdog*": {"softdog"},
	} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			for _, module := range modules {
				words := strings.Fields(module)
				if out, err := exec.CommandContext(t.Context(), "modprobe", words...).CombinedOutput(); err != nil {
					t.Skipf("SKIPPED: no module %s on this board: %s", words[0], bytes.TrimSpace(out))
				}
				unload(t, words[0])
			}
			if slices.Contains(modules, "lm75") { // a sensor on the fixture's bus makes the hwmon device
				bus := strings.TrimPrefix(nodes(t, "/sys/bus/i2c/devices/i2c-*")[0], "/sys/bus/i2c/devices/i2c-")
				for _, adapter := range nodes(t, "/sys/class/i2c-dev/i2c-*/name") {
					if content(t, adapter) == "sandpiper-lab-i2c" {
						bus = strings.TrimPrefix(filepath.Base(filepath.Dir(adapter)), "i2c-")
					}
				}
				put(t, "/sys/bus/i2c/devices/i2c-"+bus+"/new_device", "lm75 0x48")
				defer put(t, "/sys/bus/i2c/devices/i2c-"+bus+"/delete_device", "0x48")
			}
			t.Log(nodes(t, name))
		})
	}
}

func TestDiskKeepsWhatIsWritten(t *testing.T) {
	t.Parallel()
	onBoard(t)
	if !strings.Contains(content(t, "/proc/mounts"), " /data ext4 ") {
		t.Skip("SKIPPED: this board was started without a disk")
	}
	put(t, "/data/smoke", "kept")
	if got := content(t, "/data/smoke"); got != "kept" {
		t.Errorf("got %q, want %q", got, "kept")
	}
}

func TestHostLoopbackAnswers(t *testing.T) {
	t.Parallel()
	onBoard(t)
	addr := os.Getenv("LAB_TEST_HOST")
	if addr == "" {
		t.Skip("SKIPPED: LAB_TEST_HOST names no server on the host")
	}
	conn, err := (&net.Dialer{Timeout: 30 * time.Second}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != "ping\n" {
		t.Fatalf("got %q, %v, want the line back", got, err)
	}
}
