package sandbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stop asks the program to end with the signal (0 is SIGTERM), gives it the
// grace time, and kills the whole sandbox after that. A ctx that ends cuts the
// grace time short. It returns how the program ended.
func Stop(ctx context.Context, i Instance, signal syscall.Signal, grace time.Duration) (Exit, error) {
	if signal == 0 {
		signal = syscall.SIGTERM
	}
	if err := i.Signal(signal); err != nil && !errors.Is(err, ErrEnded) {
		return Exit{}, fmt.Errorf("stop: %w", err)
	}
	graced, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if exit, err := i.Wait(graced); err == nil {
		return exit, nil
	} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return Exit{}, fmt.Errorf("stop: %w", err)
	}
	if err := i.Kill(); err != nil {
		return Exit{}, fmt.Errorf("stop: %w", err)
	}
	// SIGKILL cannot be refused: what is waited for here is the kernel.
	return i.Wait(context.WithoutCancel(ctx))
}

// ParseSignal reads a signal as manifests and images write it: "SIGTERM",
// "TERM" or "15". The empty text is SIGTERM.
func ParseSignal(s string) (syscall.Signal, error) {
	if s == "" {
		return syscall.SIGTERM, nil
	}
	if n, err := strconv.Atoi(s); err == nil {
		if n >= 1 && n <= 64 {
			return syscall.Signal(n), nil
		}
		return 0, fmt.Errorf("signal %q: not between 1 and 64", s)
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("signal %q: unknown; use a name such as SIGTERM or a number", s)
}

// SignalName is the name of a signal, "SIGTERM", or "signal 42" without one.
func SignalName(s syscall.Signal) string {
	if n := unix.SignalName(s); n != "" {
		return n
	}
	return "signal " + strconv.Itoa(int(s))
}
