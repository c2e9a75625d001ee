package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/sandbox"
)

// opinion is one source's word on a module's health.
type opinion struct {
	source opinionSource
	note   string // "" = it is well
}

type opinionSource uint8

const (
	itself opinionSource = iota // on its socket
	checks                      // the agent's own
	sources
)

// Unhealthy is told what a module says of its health; what happens then is the remedy of its settings. An empty note means that it is well.
func (s *Supervisor) Unhealthy(name, note string) {
	u, err := s.unit(name)
	if err != nil {
		return
	}
	if note == "" {
		u.beats()
	}
	u.opine(opinion{itself, note})
}

// beats notes that the module's heart beats.
func (u *unit) beats() { u.beat.Store(int64(time.Since(u.made))) }

// opine passes on a word on the module's health; the newest of each source counts.
func (u *unit) opine(o opinion) {
	for {
		select {
		case u.sick[o.source] <- o:
			return
		default:
		}
		select {
		case <-u.sick[o.source]:
		default:
		}
	}
}

// fell handles a word on the module's health.
func (u *unit) fell(ctx context.Context, o opinion) {
	u.mu.Lock()
	news := u.sickly[o.source] != o.note
	if u.state == running {
		u.sickly[o.source] = o.note
	}
	ill := u.state == running && o.note != ""
	u.mu.Unlock()
	if news {
		signal(u.s.tell)
		u.log.Info("health of the module", "healthy", o.note == "", "note", o.note)
	}
	if !ill {
		return
	}
	switch m := u.module(); {
	case m.Settings.Health.Unhealthy == deployment.RemedyReport, m.Restart == deployment.Never && m.Settings.Health.Unhealthy == deployment.RemedyRestart:
	default:
		then := u.afterIllness()
		u.log.Warn("module is unhealthy, it is ended", "note", o.note, "stays_down", then == evDone)
		u.sicken(ctx, "unhealthy: "+o.note, then)
	}
}

// afterIllness is what becomes of a module that was ended because it is unhealthy.
func (u *unit) afterIllness() event {
	if u.module().Settings.Health.Unhealthy == deployment.RemedyStop {
		return evDone
	}
	return evExit
}

// illnessLocked is what is wrong with a running module, "" = nothing.
func (u *unit) illnessLocked() string {
	var all []string
	for _, note := range u.sickly {
		if note != "" {
			all = append(all, note)
		}
	}
	return strings.Join(all, "; ")
}

// health is what is looked at: the newest deployment's checks, else those of the image that runs.
func (u *unit) health() deployment.Health {
	return u.module().Settings.Health.With(u.seat.Image.Health)
}

// examine looks after the health of an instance until ctx ends. What to look at is asked each time: a deployment may change it.
func (u *unit) examine(ctx context.Context, inst sandbox.Instance) {
	began := time.Now()
	failures := 0
	told := ""
	up := false // a check of Docker's kind succeeded: from then on failures count
	for {
		h := u.health()
		if !h.Checked() { // a deployment took the checks away, and their word with them
			failures = 0
			if told != "" {
				told = ""
				u.opine(opinion{checks, ""})
			}
		}
		starting := !up && time.Since(began) < orDefault(h.Start, deployment.DefaultHealthStart)
		interval := orDefault(h.Interval, deployment.DefaultHealthInterval)
		if starting && h.StartInterval > 0 {
			interval = h.StartInterval
		}
		if h.Heartbeat > 0 {
			interval = min(interval, h.Heartbeat)
		}
		timer := time.NewTimer(interval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if h = u.health(); paused(inst) || !h.Checked() {
			continue
		}
		err := u.look(ctx, inst, h, began)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !up && time.Since(began) < orDefault(h.Start, deployment.DefaultHealthStart) {
			continue
		}
		if err == nil {
			failures, up = 0, h.Docker
		} else {
			failures++
		}
		retries := h.Retries
		if retries == 0 {
			retries = deployment.DefaultHealthRetries
		}
		note := ""
		var late *lateError
		if err != nil && (failures >= retries || errors.As(err, &late)) {
			note = err.Error()
		} else if err != nil {
			u.log.Info("health check failed", "err", err, "in_a_row", failures, "of", retries)
			continue
		}
		if note != told {
			told = note
			u.opine(opinion{checks, note})
		}
	}
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// lateError is a heartbeat that did not come: there is no second try.
type lateError struct{ age, every time.Duration }

func (e *lateError) Error() string {
	return fmt.Sprintf("no heartbeat for %s, one is due every %s", e.age.Round(time.Second), e.every)
}

// look makes every check that the settings ask for.
func (u *unit) look(ctx context.Context, inst sandbox.Instance, h deployment.Health, began time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, orDefault(h.Timeout, deployment.DefaultHealthTimeout))
	defer cancel()
	if h.Heartbeat > 0 {
		last := began
		if at := u.made.Add(time.Duration(u.beat.Load())); at.After(last) {
			last = at
		}
		if age := time.Since(last); age > h.Heartbeat {
			return &lateError{age, h.Heartbeat}
		}
	}
	if len(h.Command) > 0 {
		if err := checkCommand(ctx, inst, u.s.cfg.Hosting.Command(u.seat, h.Command)); err != nil {
			return err
		}
	}
	if h.TCP != "" {
		conn, err := dialInside(ctx, inst, h.TCP)
		if err != nil {
			return fmt.Errorf("check of %s: %w", h.TCP, err)
		}
		_ = conn.Close() // it took the connection: that is all
	}
	if h.HTTP != "" {
		if err := checkHTTP(ctx, inst, h.HTTP); err != nil {
			return fmt.Errorf("check of %s: %w", h.HTTP, err)
		}
	}
	return nil
}

// maxSaid is how much of a check's output is told, in bytes.
const maxSaid = 200

// checkCommand runs the check as Docker does: with the module's environment, directory and user.
func checkCommand(ctx context.Context, inst sandbox.Instance, c sandbox.Command) error {
	runner, ok := inst.(sandbox.Execer)
	if !ok {
		return nil
	}
	said := &head{most: maxSaid}
	c.Stdout, c.Stderr = said, said
	name := strings.Join(c.Args, " ")
	name = name[:min(len(name), maxSaid)]
	exit, err := runner.Exec(ctx, c)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("check by %q did not end in time", name)
	case err != nil:
		return fmt.Errorf("check by %q: %w", name, err)
	case exit.Code != 0:
		return fmt.Errorf("check by %q: %s: %q", name, describe(exit), said.kept)
	}
	return nil
}

// head keeps the beginning of what is written.
type head struct {
	kept []byte
	most int
}

func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), h.most-len(h.kept))]...)
	return len(p), nil
}

func dialInside(ctx context.Context, inst sandbox.Instance, addr string) (net.Conn, error) {
	d, ok := inst.(sandbox.Dialer)
	if !ok {
		return nil, errors.New("this runtime cannot connect to a module")
	}
	return d.Dial(ctx, "tcp", addr)
}

// maxAnswer bounds the head of an answer, in bytes; its body is not read.
const maxAnswer = 16 << 10

func checkHTTP(ctx context.Context, inst sandbox.Instance, text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	conn, err := dialInside(ctx, inst, u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, text, nil)
	if err != nil {
		return err
	}
	req.Close = true
	req.Header.Set("User-Agent", "sandpiper-health")
	if err := req.Write(conn); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), req)
	if err != nil {
		return err
	}
	_ = res.Body.Close() // what it says does not matter
	if res.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("it answered %s", res.Status)
	}
	return nil
}
