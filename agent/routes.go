package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/agent/deployment"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/agent/route"
	"github.com/sandpiper-edge/sandpiper/agent/twin"
)

// routes keeps the router equal to $edgeHub's desired properties. A document that cannot be understood is reported and the
// routes in force stay.
type routes struct {
	id     iothub.ID // {device}/$edgeHub
	twins  *twin.Keeper
	logger *slog.Logger
	table  atomic.Pointer[route.Router]
	rules  atomic.Pointer[[]route.Rule] // what the table was made of

	mu      sync.Mutex // one application at a time, in the order of versions
	version int64
	report  deployment.HubReport
}

// router returns the table in force. With no deployment at all nothing is routed, and nothing is lost: a publish that no
// route takes is acknowledged and dropped, as IoT Edge does.
func (r *routes) router() *route.Router { return r.table.Load() }

// apply makes the twin's current desired section the routes in force.
func (r *routes) apply() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.twins.Snapshot(r.id)
	if !now.Known || now.DesiredVersion == r.version {
		return
	}
	r.version = now.DesiredVersion
	wanted, err := deployment.ParseHub(now.Desired)
	status := deployment.StatusOf(err)
	switch {
	case deployment.IsEmpty(err) && r.rules.Load() == nil:
		r.logger.Info("no routes are deployed to this device yet")
	case err != nil:
		r.logger.Error("routes refused; the ones in force stay", "deployment", now.DesiredVersion, "err", err)
	default:
		r.table.Store(route.NewRouter(wanted.Rules))
		r.rules.Store(&wanted.Rules)
		for _, note := range append(wanted.Notes, withoutEffect(wanted.Rules)...) {
			r.logger.Warn("accepted without effect", "deployment", now.DesiredVersion, "note", note)
		}
		r.logger.Info("routes in force", "deployment", now.DesiredVersion, "routes", len(wanted.Rules))
	}
	r.report.LastDesiredVersion, r.report.LastDesiredStatus = now.DesiredVersion, status
	r.reportLocked(context.Background())
}

// withoutEffect names what rules ask of the store and it does not do: nothing is accepted in silence.
func withoutEffect(rules []route.Rule) (notes []string) {
	for _, r := range rules {
		if r.Terms.Clock != route.PoweredOn {
			notes = append(notes, fmt.Sprintf("routes.%s.timeToLiveClock: times to live count the time switched on", r.Name))
		}
	}
	return notes
}

// list is the routes in force, as status shows them.
func (r *routes) list() []control.Route {
	out := []control.Route{}
	rules := r.rules.Load()
	if rules == nil {
		return out
	}
	for _, rule := range *rules {
		out = append(out, control.Route{
			Name: rule.Name, Route: rule.Route.String(), Priority: int(rule.Priority), TTLSeconds: int64(rule.TTL.Seconds()), Clock: rule.Terms.Clock.String(),
			Durability: rule.Terms.Durability.String(), Eviction: rule.Terms.Eviction.String(),
		})
	}
	return out
}

// clients reports who is connected.
func (r *routes) clients(ctx context.Context, list map[string]deployment.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Clients = list
	r.reportLocked(ctx)
}

// reportLocked writes what changed to $edgeHub's reported section.
func (r *routes) reportLocked(ctx context.Context) {
	patch, news, err := deployment.Difference(r.twins.Snapshot(r.id).Reported, r.report)
	if err == nil && news {
		_, err = r.twins.PatchReported(ctx, r.id, patch)
	}
	if err != nil {
		r.logger.Warn("report of the routes not stored", "identity", r.id.String(), "err", err)
	}
}
