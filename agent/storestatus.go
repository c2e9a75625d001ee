package agent

import (
	"fmt"

	"github.com/sandpiper-edge/sandpiper/agent/control"
	"github.com/sandpiper-edge/sandpiper/store"
)

// storeStatus is the store in numbers, and what an operator should know.
func (a *Agent) storeStatus() control.Store {
	usage := a.store.Usage()
	doc := StoreReport(usage)
	if why := a.refusal.Load(); why != nil && usage.Failing {
		doc.Why = append(doc.Why, "the last message was not stored: "+(*why).Error())
	}
	doc.Wear = a.wear.day()
	doc.Wear.Budget, doc.Wear.AtLimit = int64(a.cfg.Store.DailyWrites), string(a.cfg.Store.AtDailyLimit)
	if why := a.pacer.refusal.Load(); why != nil {
		doc.Health = "full"
		doc.Why = append(doc.Why, (*why).Error())
	}
	if l := a.pacer.limit.Load(); l != nil {
		what := map[AtLimit]string{
			AtLimitLinger: fmt.Sprintf("commits wait up to %s for one another", l.linger), AtLimitRelaxed: fmt.Sprintf("messages are acknowledged up to %s before the disk has them", limitWindow),
			AtLimitRefuse: "no message is acknowledged until the day is over",
		}[l.at]
		doc.Why = append(doc.Why, fmt.Sprintf("the day's budget of %d bytes written is used up: %s", doc.Wear.Budget, what))
		if l.at == AtLimitRefuse {
			doc.Health = "full"
		}
	}
	if err := a.pacer.failing(); err != nil {
		doc.Health = "failing"
		doc.Why = append(doc.Why, err.Error())
	}
	return doc
}

// StoreReport says how a store is and, where it is not well, why and what to do.
func StoreReport(u store.Usage) control.Store {
	doc := control.Store{
		HeldBytes: u.Held, LimitBytes: u.Limit, FreeBytes: u.Free, Waiting: u.Waiting, Records: u.Records, Commits: u.Commits, Flushes: u.Flushes,
		WrittenBytes: u.Written, Health: "ok", Why: []string{}, Wear: control.Wear{Modules: []control.ModuleWear{}},
	}
	if u.Recovered || u.DamagedFiles > 0 || u.DamagedRecords > 0 || u.DamagedDocuments > 0 {
		doc.Health = "damaged"
		doc.Why = append(doc.Why, fmt.Sprintf("the disk damaged the store: %d files, %d messages, %d documents; replace it", u.DamagedFiles,
			u.DamagedRecords, u.DamagedDocuments))
	}
	if u.Full {
		doc.Health = "full"
		doc.Why = append(doc.Why, fmt.Sprintf("the store is full (%d of %d bytes, %d free on the disk): messages are not acknowledged until it drains",
			u.Held, u.Limit, u.Free))
	}
	if u.Failing {
		doc.Health = "failing"
		doc.Why = append(doc.Why, "the disk does not take what the store writes: messages are not acknowledged; see the log for the error, then check mount and disk")
	}
	return doc
}
