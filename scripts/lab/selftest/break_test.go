package selftest

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// broken skips unless this test is asked for.
func broken(t *testing.T) {
	t.Helper()
	if os.Getenv("LAB") == "" || os.Getenv("LAB_TEST_BREAK") != t.Name() {
		t.Skip("SKIPPED: goes wrong on purpose: make lab-selftest")
	}
}

func TestNothing(t *testing.T) {
	t.Parallel()
	broken(t)
}

func TestFailure(t *testing.T) {
	t.Parallel()
	broken(t)
	t.Error("got what nobody wants, want it")
}

func TestPanic(t *testing.T) {
	t.Parallel()
	broken(t)
	done := make(chan bool)
	go func() {
		defer close(done)
		panic("nobody recovers from this")
	}()
	<-done
}

func TestExit(t *testing.T) {
	t.Parallel()
	broken(t)
	syscall.Exit(7)
}

func TestHang(t *testing.T) {
	t.Parallel()
	broken(t)
	select {}
}

// A stopped process does not even notice its own time-out.
func TestBoardHang(t *testing.T) {
	t.Parallel()
	broken(t)
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

func TestKernelOops(t *testing.T) {
	t.Parallel()
	broken(t)
	out, err := exec.CommandContext(t.Context(), "modprobe", "lab_oops").CombinedOutput()
	t.Logf("%v %s", err, out) // the kernel goes on, and so does this test
}

func TestKernelPanic(t *testing.T) {
	t.Parallel()
	broken(t)
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
		t.Fatal(err)
	}
	select {}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	broken(t)
	f, err := os.Create("/data/full")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	for small := make([]byte, 512); errors.Is(err, syscall.ENOSPC) && len(small) > 0; small = small[:len(small)/2] {
		for err = nil; err == nil; {
			_, err = f.Write(small)
		}
	}
	t.Fatal("write:", err)
}
