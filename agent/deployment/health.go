package deployment

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of health checks: each costs the device a process or a connection.
const (
	minInterval = time.Second
	maxInterval = 24 * time.Hour
	maxRetries  = 1000
)

// health reads settings.health.
func (p *parser) health(o object) Health {
	var h Health
	duration := func(key string, most time.Duration) (d time.Duration) {
		if v := o.get(key); v != nil {
			d = p.duration(o.at(key), v, most)
		}
		return d
	}
	paced := func(key string) time.Duration {
		d := duration(key, maxInterval)
		if d != 0 && d < minInterval {
			p.fail(o.at(key), d.String(), "at least "+minInterval.String())
		}
		return d
	}
	h.Probation = duration("probation", maxProbation)
	if v := o.get("restarts"); v != nil {
		h.Restarts = int(p.whole(o.at("restarts"), v, 0, 1000))
	}
	h.Heartbeat = paced("heartbeat")
	h.Command = p.texts(o.at("command"), o.get("command"))
	if len(h.Command) > 0 && h.Command[0] == "" {
		p.fail(o.at("command[0]"), "empty", "the program to run")
	}
	if h.TCP = o.text("tcp"); h.TCP != "" {
		if _, err := netip.ParseAddrPort(h.TCP); err != nil {
			p.fail(o.at("tcp"), quote(h.TCP), "address and port inside the module, such as 127.0.0.1:8080")
		}
	}
	if h.HTTP = o.text("http"); h.HTTP != "" && !plainURL(h.HTTP) {
		p.fail(o.at("http"), quote(h.HTTP), "a URL inside the module, such as http://127.0.0.1:8080/healthz")
	}
	h.Interval, h.Timeout, h.Start = paced("interval"), duration("timeout", maxInterval), duration("start", maxProbation)
	if v := o.get("retries"); v != nil {
		h.Retries = int(p.whole(o.at("retries"), v, 1, maxRetries))
	}
	if v := o.get("image"); v != nil {
		h.NoImage = !p.flag(o, "image")
	}
	h.Unhealthy = choice(o, "onUnhealthy", remedies, RemedyRestart)
	o.onlyThese()
	return h
}

// plainURL tells whether text is an http URL with an address of numbers and a port.
func plainURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.User != nil {
		return false
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil || port < 1 || port > 65535 {
		return false
	}
	_, err = netip.ParseAddr(u.Hostname())
	return err == nil
}

// applyHealthcheck reads Docker's health check; times are whole nanoseconds.
func applyHealthcheck(p *parser, at string, value any, s *Settings) {
	o := p.object(at, value)
	for _, key := range o.keys() {
		if !slices.ContainsFunc([]string{"Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"}, func(known string) bool { return strings.EqualFold(known, key) }) {
			p.fail(o.at(key), "no member of a health check that is known here", "it left out")
		}
	}
	duration := func(key string, least, most time.Duration) time.Duration {
		v := fold(o.members, key)
		if isUnset(v) {
			return 0
		}
		return time.Duration(p.whole(o.at(key), v, int64(least), int64(most)))
	}
	h := Health{
		Docker:   true,
		Interval: duration("Interval", minInterval, maxInterval), Timeout: duration("Timeout", time.Millisecond, maxInterval),
		Start: duration("StartPeriod", time.Millisecond, maxProbation), StartInterval: duration("StartInterval", minInterval, maxInterval),
	}
	if v := fold(o.members, "Retries"); !isUnset(v) {
		h.Retries = int(p.whole(o.at("Retries"), v, 1, maxRetries))
	}
	const want = `["CMD", "program", ...], ["CMD-SHELL", "command"] or ["NONE"]`
	test := p.texts(o.at("Test"), fold(o.members, "Test"))
	switch {
	case len(test) == 0: // the image's, at this pace
	case len(test) == 1 && test[0] == "NONE":
		h = Health{NoImage: true}
	case test[0] == "CMD" && len(test) > 1 && test[1] != "":
		h.Command = test[1:]
	case test[0] == "CMD-SHELL" && len(test) == 2 && test[1] != "":
		h.Command = []string{"/bin/sh", "-c", test[1]}
	default:
		p.fail(o.at("Test"), quote(strings.Join(test, " ")), want)
	}
	s.Health = h
}
