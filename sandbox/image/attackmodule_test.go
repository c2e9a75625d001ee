package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle/bundletest"
)

// activeBundle is a module whose program is this very test, and whose data is told apart from everybody's.
func activeBundle(t *testing.T) []byte {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return bundletest.Build(t, bundletest.Options{
		Files: map[string]string{"data": string(activeData()), "app": string(self)},
		Manifest: func(m *bundle.Manifest) {
			m.Name, m.Runtime = "active", &bundle.Runtime{Args: []string{"/app"}}
		},
	})
}

func activeData() []byte { return noise(300<<10, 3) }

// activeModule is a process whose program lies in a mounted image.
type activeModule struct {
	cmd  *exec.Cmd
	in   *os.File
	out  *bufio.Reader
	pipe *os.File
}

// startActive starts the module out of its image. It ends with its test.
func startActive(t *testing.T, mounted string) *activeModule {
	t.Helper()
	asks, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(mounted, "app"), "-test.run=^TestActiveModule$")
	cmd.Env = append(os.Environ(), "IMAGE_ACTIVE=1")
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = mounted, asks, answers, answers
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the active module: %v", err)
	}
	_ = asks.Close()
	_ = answers.Close()
	return &activeModule{cmd, in, bufio.NewReader(out), out}
}

// ask wants the module's answer: its process and the digest of its data, read anew.
func (m *activeModule) ask(question string) error {
	const slow = time.Minute // on a machine where everything else runs, too
	if err := m.pipe.SetReadDeadline(time.Now().Add(slow)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(m.in, strings.ReplaceAll(question, "\n", " ")); err != nil {
		return fmt.Errorf("ask process %d: %w", m.cmd.Process.Pid, err)
	}
	got, err := m.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("hear process %d: %q, %w", m.cmd.Process.Pid, got, err)
	}
	if want := answerOf(m.cmd.Process.Pid, question, activeData()); strings.TrimSuffix(got, "\n") != want {
		return fmt.Errorf("the active module says %q, want %q", got, want)
	}
	return nil
}

// end has the module end, and waits for it.
func (m *activeModule) end() error {
	_ = m.in.Close()
	defer func() { _ = m.pipe.Close() }()
	if err := m.cmd.Wait(); err != nil {
		return fmt.Errorf("the active module ended: %w", err)
	}
	return nil
}

func answerOf(pid int, question string, data []byte) string {
	return fmt.Sprintf("process %d, after %s: %x", pid, question, sha256.Sum256(data))
}

// TestActiveModule is the module: it answers until nobody asks any more.
func TestActiveModule(t *testing.T) {
	if os.Getenv("IMAGE_ACTIVE") == "" {
		t.Skip("this is a part of TestAfterEachRowOfTheAttackListTheActiveModuleRunsOn")
	}
	asks := bufio.NewScanner(os.Stdin)
	for asks.Scan() {
		data, err := os.ReadFile("data") // of the image it was started in
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(os.Stdout, answerOf(os.Getpid(), asks.Text(), data))
	}
}
