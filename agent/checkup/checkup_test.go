package checkup

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/certtest"
)

// look collects what one area says, as "level what -> do" lines.
func look(t *testing.T, c Config, area string) string {
	t.Helper()
	var lines []string
	Run(t.Context(), c, func(f Finding) {
		if f.Area == area {
			lines = append(lines, string(f.Level)+" "+f.What+" -> "+f.Do)
		}
	})
	if len(lines) == 0 {
		t.Errorf("the area %s says nothing", area)
	}
	return strings.Join(lines, "\n")
}

// kernelFiles makes a root with these files.
func kernelFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAWatchdogIsKnownByWhatItWouldDo(t *testing.T) {
	t.Parallel()
	const dir = "sys/class/watchdog/watchdog0/"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"none":        {nil, "warning the kernel has none"},
		"nobody feed": {map[string]string{dir + "identity": "Broadcom BCM2835", dir + "state": "inactive"}, "warning there is one, and nobody feeds it"},
		"fed":         {map[string]string{dir + "identity": "Broadcom BCM2835", dir + "state": "active", dir + "timeout": "15"}, "ok watchdog0 (Broadcom BCM2835) resets the device 15 s after"},
		"of software": {map[string]string{dir + "identity": "Software Watchdog", dir + "state": "active", dir + "timeout": "60"}, "warning watchdog0 (Software Watchdog) resets"},
		"silent":      {map[string]string{dir + "nowayout": "0"}, "unknown watchdog0 does not tell its state"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := look(t, Config{Root: kernelFiles(t, c.files)}, "watchdog"); !strings.HasPrefix(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestAFlashChipSaysHowWornItIs(t *testing.T) {
	t.Parallel()
	const dir = "sys/block/mmcblk0/device/"
	for name, c := range map[string]struct{ life, ending, want string }{
		"new":         {"0x01 0x01", "0x01", "ok mmcblk0 has used at most 10 %"},
		"worn":        {"0x02 0x09", "0x01", "warning mmcblk0 has used 90 %"},
		"nearly":      {"0x02 0x03", "0x02", "warning mmcblk0 has used 30 %"},
		"beyond":      {"0x0b 0x01", "0x01", "bad mmcblk0 has used up its life"},
		"of no words": {"0x00 0x00", "0x00", "unknown mmcblk0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := kernelFiles(t, map[string]string{dir + "life_time": c.life, dir + "pre_eol_info": c.ending})
			if got := look(t, Config{Root: root, StateDir: root, RunDir: root}, "disk"); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q in it", got, c.want)
			}
		})
	}
}

func TestAPartitionThatIsNearlyFullIsBadAndOneThatHoldsIsWell(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if got := look(t, Config{StateDir: filepath.Join(dir, "not", "made", "yet"), RunDir: dir, MinFree: 1 << 60}, "disk"); !strings.Contains(got, "bad "+dir) || !strings.Contains(got, "store.min_free") {
		t.Errorf("got %q, want what is too little", got)
	}
	if got := look(t, Config{StateDir: "/proc/self/fd", RunDir: "/proc"}, "disk"); strings.Contains(got, "is in memory\n") {
		t.Errorf("got %q: /proc holds no run files", got)
	}
}

func TestAClockFromBeforeThisProgramIsBad(t *testing.T) {
	t.Parallel()
	wrong := func() time.Time { return time.Unix(60, 0) }
	if got := look(t, Config{Now: wrong}, "clock"); !strings.HasPrefix(got, "bad it says 1970-01-01T00:01:00Z") {
		t.Errorf("got %q", got)
	}
	chip := kernelFiles(t, map[string]string{"sys/class/rtc/rtc0/name": "ds3231"})
	if got := look(t, Config{Root: chip}, "clock"); strings.Contains(got, "no clock chip") || !strings.Contains(got, "synchronised") {
		t.Errorf("got %q, want a chip, and whether it is synchronised", got)
	}
}

func TestWhatTheKernelLacksComesWithItsRemedy(t *testing.T) {
	t.Parallel()
	got := look(t, Config{Kernel: []string{"no X: modules do Y; build it with Z"}}, "kernel")
	if got != "warning no X: modules do Y -> build it with Z" {
		t.Errorf("got %q", got)
	}
	if got := look(t, Config{}, "kernel"); !strings.HasPrefix(got, "ok ") {
		t.Errorf("got %q", got)
	}
}

// answering greets over TLS with cert until the test ends.
func answering(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).HandshakeContext(t.Context())
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func TestTheWayToTheHubIsTriedUpToTheHandshakeAndSaysWhereItEnds(t *testing.T) {
	t.Parallel()
	good, roots := certtest.Between(t, "hub.example.test", time.Unix(0, 0), time.Now().Add(365*24*time.Hour))
	soon, soonRoots := certtest.Between(t, "hub.example.test", time.Unix(0, 0), time.Now().Add(24*time.Hour))
	past, pastRoots := certtest.Between(t, "hub.example.test", time.Unix(0, 0), time.Now().Add(-24*time.Hour))
	shut, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := shut.Addr().String()
	if err := shut.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		address string
		hub     string
		roots   *x509.CertPool
		want    []string
	}{
		"well":               {answering(t, good), "hub.example.test", roots, []string{"ok ", "reached; its certificate is valid until"}},
		"soon no more":       {answering(t, soon), "hub.example.test", soonRoots, []string{"warning ", "only"}},
		"expired":            {answering(t, past), "hub.example.test", pastRoots, []string{"bad ", "check the clock"}},
		"of somebody else":   {answering(t, good), "other.example.test", roots, []string{"bad ", "somebody else answers"}},
		"of nobody we trust": {answering(t, good), "hub.example.test", soonRoots, []string{"bad ", "upstream.trusted_ca"}},
		"nobody there":       {nobody, "hub.example.test", roots, []string{"bad ", "refused", "firewall"}},
		"no such name":       {"hub.invalid:8883", "hub.invalid", roots, []string{"bad ", "/etc/resolv.conf"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := look(t, Config{Hub: c.hub, MQTT: c.address, HTTPS: c.address, Roots: c.roots}, "link")
			for _, want := range c.want {
				if strings.Count(got, want) < 2 { // once for each of the two ways
					t.Errorf("got %q, want %q for both ways", got, want)
				}
			}
		})
	}
	if got := look(t, Config{}, "link"); !strings.HasPrefix(got, "ok standalone") {
		t.Errorf("got %q", got)
	}
}

func TestADeviceWithoutSignersAndWithAnOldCertificateHearsOfBoth(t *testing.T) {
	t.Parallel()
	past, _ := certtest.Between(t, "hub.example.test", time.Unix(0, 0), time.Now().Add(-24*time.Hour))
	got := look(t, Config{Certificate: &past}, "keys")
	for _, want := range []string{"warning no key of a signer", "bad the device's certificate was valid until"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}
