package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/sandbox/container"
)

// Options are what the process knows and the configuration does not.
type Options struct {
	Version     string
	Logger      *slog.Logger // default: discard
	Config      string       // path of the configuration file, for whoever asks
	CheckConfig func() error // reads the configuration file again; nil = it cannot change
	Refused     error        // why the file is not what is in force, which is what an agent before read; nil = it is
}

// Serve is the life of the agent process under a warden, with or without systemd. It ends with
//
//   - the end of ctx (SIGTERM): the modules are stopped in order, then the agent;
//   - SIGUSR2 (the warden is gone, or an upgrade): the agent ends, modules run on and are adopted by the next one;
//   - SIGHUP: the configuration is read again; if it is good this is SIGUSR2, and the warden starts the agent anew with it.
func Serve(ctx context.Context, cfg Config, opts Options) error {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	log := opts.Logger
	orders := make(chan os.Signal, 4)
	signal.Notify(orders, container.SignalLeave, syscall.SIGHUP)
	defer signal.Stop(orders)

	a, err := New(ctx, cfg, opts)
	if err != nil {
		return err
	}
	life, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(life) }()

	notify(log, daemon.SdNotifyReady+"\nSTATUS=Running")
	petting := watchdog(life, log, a.Alive)
	defer petting()
	proving := prove(life, log, a.Alive)
	defer proving()
	for {
		select {
		case err := <-ended:
			return errors.Join(err, a.Close())
		case order := <-orders:
			if order == syscall.SIGHUP && !a.reload(opts.CheckConfig) {
				continue
			}
			a.leaveHal()
			log.Info("agent leaves, modules run on", "signal", order.String())
		case <-ctx.Done():
			notify(log, daemon.SdNotifyStopping+"\nSTATUS=Stopping modules")
			log.Info("agent stops, and its modules before it")
			a.StopModules()
		}
		leave()
		return errors.Join(<-ended, a.Close())
	}
}

// reload checks the configuration anew. False: it is wrong, and the old one stays in force.
func (a *Agent) reload(check func() error) bool {
	log := a.log
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		usec := int64(now.Sec)*1e6 + int64(now.Nsec)/1e3 // both are 32 bits wide on ARM
		notify(log, daemon.SdNotifyReloading+"\nMONOTONIC_USEC="+strconv.FormatInt(usec, 10))
	}
	if check == nil {
		return true
	}
	if err := check(); err != nil {
		a.refused.Store(&err)
		log.Error("configuration not reloaded, the old one stays in force", "err", err)
		notify(log, daemon.SdNotifyReady+"\nSTATUS=Running with the old configuration: "+err.Error())
		return false
	}
	return true
}

// notify tells systemd, which may not be there.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd not notified", "err", err)
	}
}

// prove tells the warden of an agent on trial, once, that it still works when the time is over. Not for ever: it writes to the disk. The
// returned func ends it.
func prove(ctx context.Context, log *slog.Logger, alive func() error) (stop func()) {
	after, err := time.ParseDuration(os.Getenv(container.VariableTrial))
	if err != nil || after <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(after)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if err := alive(); err == nil {
				notify(log, daemon.SdNotifyWatchdog)
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// watchdog pets systemd's watchdog, if it asks for it, as long as alive says so. The returned func ends it.
func watchdog(ctx context.Context, log *slog.Logger, alive func() error) (stop func()) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(interval / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := alive(); err != nil {
					log.Error("watchdog not petted", "err", fmt.Errorf("agent is not alive: %w", err))
					continue
				}
				notify(log, daemon.SdNotifyWatchdog)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}
